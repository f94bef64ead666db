"""Models with adapters generate in torch while these act and natively once merged, and never from keys of before."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_models import FAMILIES, adapted_pair, gradients, ours_with
from tiny_models import VOCABULARY, pair, tiny

from loquent.generation import engine_of
from loquent.generation.identity import identity_of
from loquent.native import why_unavailable
from loquent.torch.causal import CausalLM

PROMPT = (torch.arange(37)[None] * 7) % VOCABULARY  # two pages and more
NATIVE = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


def continued(model: Any, **options: Any) -> list[int]:
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None} | options
    ids: list[int] = model.generate(PROMPT, **options)[0, PROMPT.shape[1] :].tolist()
    return ids


def anew(model: CausalLM) -> list[int]:
    """What a copy without an engine, and so without remembered keys, continues with."""
    return continued(copy.deepcopy(model))


@contextmanager
def reads(model: CausalLM) -> Iterator[list[int]]:
    """How many tokens the model's passes read."""
    backend = engine_of(model).backend
    run, counts = backend.run, []

    def counting(store: Any, segments: Any, layers: Any = ()) -> Any:
        counts.append(sum(len(segment.tokens) for segment in segments))
        return run(store, segments, layers)

    backend.run = counting  # type: ignore[method-assign]
    yield counts
    del backend.run


@NATIVE
@pytest.mark.parametrize("name", FAMILIES)
def test_live_runs_in_torch_and_merged_natively_token_for_token(name: str, tmp_path: Path) -> None:
    ours, theirs = adapted_pair(name, tmp_path, target_modules="all-linear")
    base = continued(pair(name)[0])
    expected = continued(theirs, attention_mask=torch.ones_like(PROMPT), pad_token_id=0)
    assert ours.describe_backend() == "torch (float32 on cpu; its adapters are not merged)"
    assert continued(ours) == expected
    ours.merge_adapter()
    assert ours.describe_backend().startswith("native")
    assert continued(ours) == expected
    ours.unmerge_adapter()
    assert ours.describe_backend().startswith("torch")
    assert continued(ours) == expected
    ours.disable_adapters()
    assert ours.describe_backend().startswith("native")
    assert continued(ours) == base
    ours.enable_adapters()
    ours.merge_and_unload()
    assert ours.describe_backend().startswith("native")
    assert continued(ours) == expected


def steps(model: CausalLM) -> Iterator[str]:
    """Changes of what the model computes, each followed by a look."""
    yield "one"
    model.set_adapter("two")
    yield "two"
    model.set_adapter(["one", "two"])
    yield "both"
    model.merge_adapter("one")
    yield "one merged"
    model.unmerge_adapter()
    model.merge_adapter("two")
    yield "two merged"
    model.unmerge_adapter()
    yield "both again"
    model.disable_adapters()
    yield "none"
    model.enable_adapters()
    model.delete_adapter("one")
    yield "two left"
    model.delete_adapter("two")
    yield "none left"


@pytest.mark.parametrize("native", [pytest.param(True, marks=NATIVE), False], ids=["native", "torch"])
def test_no_key_of_before_is_used_for_another_adapter(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setenv("LOQUENT_NATIVE", "0")
    model = ours_with(tiny("llama"), "two", seed=2)
    ours_with(model, "one", seed=1)
    found = {}
    for state in steps(model):
        found[state] = continued(model)
        assert found[state] == anew(model), state
        assert found[state] == continued(model), state
    assert found["one"] == found["one merged"]
    assert found["two"] == found["two merged"] == found["two left"]
    assert found["none"] == found["none left"]
    assert len({tuple(ids) for ids in found.values()}) == 4


def test_keys_are_remembered_as_long_as_the_adapter_stays_what_it_is() -> None:
    model = ours_with(tiny("gpt2"))
    expected = continued(model)
    with reads(model) as counts:
        assert continued(model) == expected
    assert counts[0] < 16
    model.train()
    model(PROMPT, labels=PROMPT).loss.backward()
    assert gradients(model)
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    model.eval()
    with reads(model) as counts:
        trained = continued(model)
    assert counts[0] == PROMPT.shape[1]
    assert trained == anew(model)


def test_the_layout_for_speed_changes_nothing() -> None:
    """Weights copied into oneDNN's layout (torch.packed) have the adapter's update added all the same."""
    model = ours_with(tiny("doge"))
    packed = continued(model)
    model.pack_weights = False
    assert anew(model) == packed


@NATIVE
def test_an_adapters_dropout_counts_while_it_acts() -> None:
    model = ours_with(tiny("llama"), lora_dropout=0.25).train()
    for _ in range(2):
        with reads(model) as counts:
            continued(model)
        assert counts[0] == PROMPT.shape[1]  # nothing is remembered of what chance made
    model.merge_adapter()
    assert model.describe_backend().startswith("native")


def test_prompt_caches_know_adapters_apart() -> None:
    model = ours_with(tiny("llama"), "two", seed=2)
    ours_with(model, "one", seed=1)
    found = {state: identity_of(model) for state in steps(model)}
    assert found["none"] == found["none left"]
    assert found["two"] == found["two left"]
    assert found["both"] == found["both again"]
    assert len(set(found.values())) == 6


def test_half_types_generate_with_live_adapters() -> None:
    model = ours_with(tiny("llama").bfloat16())
    assert continued(model) == anew(model)
    assert model.describe_backend() == "torch (bfloat16 on cpu; its adapters are not merged)"


def test_every_kind_of_search_runs_with_live_adapters() -> None:
    model = ours_with(tiny("gpt2"))
    greedy = continued(model)
    assert continued(model, prompt_lookup_num_tokens=3) == greedy
    assert continued(model, assistant_early_exit=1) == greedy
    plain = copy.deepcopy(model).merge_and_unload()
    for options in ({"num_beams": 3}, {"penalty_alpha": 0.6, "top_k": 4}):
        assert continued(model, **options) == continued(plain, **options)
