"""An engine on the native backend: a request's result depends on the model and the request alone, as in torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import loquent
from loquent.decoding.rules import Custom
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import one_by_one
from loquent.decoding.task import Decoding
from loquent.engine import Engine
from loquent.generation import engine_of
from loquent.native import why_unavailable
from properties.models import EVERY, tiny
from properties.test_results import Asked, alone, assert_nothing_held, finish, requests

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


def backend_of(name: str) -> Any:
    from loquent.native.lent import borrowing_backend

    return borrowing_backend(tiny(name).lend_weights())


def by_plan(name: str, prompt: list[int], decoding: Any) -> list[tuple[int, ...]]:
    engine = Engine(backend_of(name), reuse_prefixes=False)
    [result] = finish(engine, [engine.submit(prompt, decoding)])
    return result


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(
    asked=requests(),
    page_size=st.sampled_from([2, 5, 16]),
    step_tokens=st.sampled_from([3, 9, 2048]),
    reuse=st.booleans(),
)
def test_alone_or_in_any_company(name: str, asked: list[Asked], page_size: int, step_tokens: int, reuse: bool) -> None:
    """Alone = batched = in chunks = on a shared beginning = arriving at any step."""
    engine = Engine(backend_of(name), page_size=page_size, step_tokens=step_tokens, reuse_prefixes=reuse)
    handles: dict[int, Any] = {}
    for step in range(9):
        for number, (prompt, decoding, arrival) in enumerate(asked):
            if arrival == step:
                handles[number] = engine.submit(prompt, decoding)
        engine.step()
    found = finish(engine, [handles[number] for number in range(len(asked))])
    assert found == [by_plan(name, prompt, decoding) for prompt, decoding, _ in asked]
    assert_nothing_held(engine)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=5, deadline=None)
@given(asked=requests())
def test_results_are_those_of_torch(name: str, asked: list[Asked]) -> None:
    for prompt, decoding, _ in asked:
        assert by_plan(name, prompt, decoding) == alone(tiny(name), prompt, decoding)


def test_a_processor_that_runs_the_model_leaves_the_other_rows_as_they_are() -> None:
    engine = Engine(backend_of("llama"))
    plain = Decoding(one_by_one, Stopping(5))

    def nested(ids: Any, scores: Any) -> Any:
        handle = engine.submit([1, 2, 3], plain)
        while not handle.done:
            engine.step()
        return scores

    def failing(ids: Any, scores: Any) -> Any:
        raise LookupError("a processor that fails")

    first = engine.submit([4, 5, 6], Decoding(one_by_one, Stopping(5), (Custom((nested,)),)))
    second = engine.submit([7, 8], Decoding(one_by_one, Stopping(5), (Custom((failing,)),)))
    while not (first.done and second.done):
        engine.step()
    with pytest.raises(LookupError):
        second.result()
    assert [hypothesis.tokens for hypothesis in first.result()] == by_plan("llama", [4, 5, 6], plain)


@cache
def default_model() -> Any:
    from loquent.text.loading import default_model

    return loquent.AutoModelForCausalLM.from_pretrained(default_model(), dtype="float32")


@pytest.mark.parametrize("how", [{}, {"do_sample": True, "seed": 3}, {"num_beams": 3}, {"repetition_penalty": 1.3}])
def test_the_default_model_writes_what_it_writes_in_torch(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = default_model()
    arguments = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": None, "pad_token_id": 0} | how
    prompts = torch.arange(1, 25).view(2, 12) * 17 % engine_of(model).backend.vocabulary
    assert model.describe_backend().startswith("native")
    found = model.generate(prompts, **arguments)
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    assert model.describe_backend().startswith("torch")
    assert torch.equal(model.generate(prompts, **arguments), found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["babyllama105", "stories260k"])
def test_trained_models_go_on_as_they_should(shared_data: Path, name: str, dtype: str) -> None:
    references = json.loads((shared_data / "reference" / "trained_models_transformers_5.23.json").read_text())
    reference = references[name]["greedy"]
    model = loquent.AutoModelForCausalLM.from_pretrained(shared_data / "models" / name, dtype=dtype)
    assert f"{dtype} in place" in model.describe_backend()
    found = model.generate(torch.tensor([references[name]["prompt_ids"]]), **reference["arguments"]).tolist()
    same = next((i for i, (ours, theirs) in enumerate(zip(found[0], reference["ids"])) if ours != theirs), None)
    assert same is None or (dtype == "bfloat16" and same > len(references[name]["prompt_ids"]) + 8)
