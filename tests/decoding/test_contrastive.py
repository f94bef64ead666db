"""Contrastive search: against transformers, against greedy search, and by its own formula on a toy."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoding.pairs import MakePair
from engine.toy import ToyBackend
from loquent import ArgumentError, ContextLengthError
from loquent.decoding.rules import Suppress
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import contrastive_search, one_by_one
from loquent.decoding.task import Decoding
from loquent.decoding.trace import Contrast, Contrasted
from loquent.engine import Engine
from loquent.errors import CapacityError

PAD = 1
PROMPTS = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8]]

SETTINGS: dict[str, dict[str, Any]] = {
    "as in the paper": {"penalty_alpha": 0.6, "top_k": 4},
    "light": {"penalty_alpha": 0.1, "top_k": 8},
    "similarity alone": {"penalty_alpha": 1.0, "top_k": 5},
    "two candidates": {"penalty_alpha": 0.5, "top_k": 2},
    "every token": {"penalty_alpha": 0.7, "top_k": 37},
    "one token": {"max_new_tokens": 1},
    "several ends": {"eos_token_id": [2, 5, 11, 17, 33]},
    "repetition": {"repetition_penalty": 1.6},
    "repetition welcome": {"repetition_penalty": 0.6, "penalty_alpha": 0.2},
    "no repeated pairs": {"no_repeat_ngram_size": 2, "top_k": 6},
    "bad words": {"bad_words_ids": [[4], [9, 9], [5, 6, 7]]},
    "at least so many new": {"min_new_tokens": 6, "eos_token_id": [2, 5, 11, 14, 33]},
    "suppressed": {"suppress_tokens": [3, 4, 5], "begin_suppress_tokens": [6, 7, 14]},
    "guided": {"guidance_scale": 2.5},
    "guided back": {"guidance_scale": 0.4, "penalty_alpha": 0.4},
}


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    defaults = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 12, "do_sample": False, "pad_token_id": PAD}
    return {**defaults, **asked}


def theirs_alone(model: Any, prompt: list[int], asked: dict[str, Any]) -> list[int]:
    ids = torch.tensor([prompt])
    rows: list[list[int]] = model.generate(ids, attention_mask=torch.ones_like(ids), **arguments(asked)).tolist()
    return rows[0]


def ours_alone(model: Any, prompt: list[int], asked: dict[str, Any]) -> list[int]:
    rows: list[list[int]] = model.generate([prompt], **arguments(asked)).tolist()
    return rows[0]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    for prompt in PROMPTS:
        assert ours_alone(ours, prompt, SETTINGS[name]) == theirs_alone(theirs, prompt, SETTINGS[name])
    assert ours._engine_slot.engine.space.held == 0


anything = st.fixed_dictionaries(
    {
        "penalty_alpha": st.floats(0.01, 1.0),
        "top_k": st.integers(2, 10),
        "max_new_tokens": st.integers(1, 16),
        "eos_token_id": st.none() | st.lists(st.integers(2, 36), min_size=1, max_size=7, unique=True),
    },
    optional={"repetition_penalty": st.sampled_from([0.7, 1.3]), "no_repeat_ngram_size": st.integers(1, 3)},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 3), prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6), asked=anything)
def test_any_settings(llama_pair: MakePair, seed: int, prompt: list[int], asked: dict[str, Any]) -> None:
    ours, theirs = llama_pair(seed)
    assert ours_alone(ours, prompt, asked) == theirs_alone(theirs, prompt, asked)


@pytest.mark.parametrize("name", ["as in the paper", "several ends", "repetition", "guided"])
def test_a_batch_gives_what_each_row_gives_alone(llama_pair: MakePair, name: str) -> None:
    ours, _ = llama_pair(3)
    width = max(map(len, PROMPTS))
    batch = ours.generate(PROMPTS, **arguments(SETTINGS[name])).tolist()
    for row, prompt in zip(batch, PROMPTS):
        new = ours_alone(ours, prompt, SETTINGS[name])[len(prompt) :]
        assert row[width:] == new + [PAD] * (len(row) - width - len(new))


def test_temperature_and_the_like_are_ignored_and_sampling_comes_first(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(1)
    plain = ours_alone(ours, PROMPTS[0], {})
    config = ours.generation_config.copy()
    config.update(temperature=0.3, top_p=0.2)
    assert ours_alone(ours, PROMPTS[0], {"generation_config": config}) == plain
    sampled = {"do_sample": True, "seed": 3, "temperature": 2.0}
    assert ours_alone(ours, PROMPTS[0], sampled) == ours_alone(ours, PROMPTS[0], {**sampled, "penalty_alpha": 0.0})
    greedy = ours_alone(ours, PROMPTS[0], {"penalty_alpha": None, "top_k": 50})
    assert ours_alone(ours, PROMPTS[0], {"top_k": 1}) == greedy != plain


# --- the coroutine on a toy ------------------------------------------------------------------------------------------


def contrastive(alpha: float, count: int, new: int = 12, **fields: Any) -> Decoding:
    strategy = partial(contrastive_search, alpha=alpha, count=count, layer=2)
    return Decoding(strategy, Stopping(new), branches=count, own_tokens=1, **fields)


def run(engine: Engine, prompt: list[int], decoding: Decoding) -> tuple[int, ...]:
    handle = engine.submit(prompt, decoding)
    while engine.step():
        assert engine.space.held <= engine.room.most_bytes(len(prompt), decoding)
    assert engine.space.held == 0
    return handle.result()[0].tokens


def by_the_formula(prompt: list[int], new: int, alpha: float, count: int) -> tuple[int, ...]:
    toy, tokens = ToyBackend(), list(prompt)

    def state(text: list[int]) -> Any:
        found = toy._state(np.stack([np.array(text, float), np.arange(len(text), dtype=float)], axis=1), 2)
        return found / np.linalg.norm(found)

    for _ in range(new):
        logits = toy.logits(tokens).astype(float)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        past = [state(tokens[:stop]) for stop in range(1, len(tokens) + 1)]
        values = {
            token: (1 - alpha) * probabilities[token] - alpha * max(state([*tokens, token]) @ one for one in past)
            for token in np.argsort(-probabilities)[:count].tolist()
        }
        tokens.append(max(values, key=lambda token: values[token]))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("page_size", [1, 4])
def test_what_the_formula_says(alpha: float, page_size: int) -> None:
    for prompt in ([3], [1, 2, 3], [5, 5, 5, 5, 5]):
        found = run(Engine(ToyBackend(), page_size=page_size), prompt, contrastive(alpha, 5))
        assert found == by_the_formula(prompt, 12, alpha, 5)


@settings(max_examples=40, deadline=None)
@given(prompt=st.lists(st.integers(0, 10), min_size=1, max_size=9), count=st.integers(1, 11), chunk=st.integers(1, 9))
def test_without_a_penalty_it_is_greedy(prompt: list[int], count: int, chunk: int) -> None:
    engine = Engine(ToyBackend(), page_size=4, step_tokens=max(chunk, count))
    greedy = run(engine, prompt, Decoding(one_by_one, Stopping(12)))
    assert run(engine, prompt, contrastive(0.0, count)) == greedy


def test_a_remembered_beginning_is_read_again_since_its_states_are_wanted() -> None:
    backend, prompt = ToyBackend(), [1, 2, 3, 4, 5, 6, 7, 8, 9]
    engine = Engine(backend, page_size=2)
    first = run(engine, prompt, contrastive(0.6, 4, new=3))
    assert backend.tokens_read == 9 + 3 * 4
    assert engine.space.remembered
    assert run(engine, prompt, contrastive(0.6, 4, new=3)) == first
    assert backend.tokens_read == 2 * (9 + 3 * 4)
    run(engine, prompt, Decoding(one_by_one, Stopping(1)))
    assert backend.tokens_read == 2 * (9 + 3 * 4) + 1  # which others need not


def test_what_rules_forbid_is_no_candidate() -> None:
    """transformers may choose a token without probability where fewer than k are left; ours cannot."""
    rules = (Suppress(tuple(range(2, 11))),)
    assert set(run(Engine(ToyBackend()), [3], contrastive(0.9, 6, rules=rules))) <= {0, 1}
    engine = Engine(ToyBackend())
    handle = engine.submit([3], contrastive(0.9, 6, rules=(Suppress(tuple(range(11))),)))
    while engine.step():
        pass
    with pytest.raises(ArgumentError, match="leave no token"):
        handle.result()


def test_its_forks_count() -> None:
    """Candidates share all but their own token, so that they need a page each beside the longest one's."""
    engine = Engine(ToyBackend(), page_size=4, kv_memory=6 + 4)
    assert len(run(engine, [1] * 4, contrastive(0.6, 5, new=20))) == 20
    with pytest.raises(CapacityError, match="11 B of keys and values"):
        engine.submit([1] * 4, contrastive(0.6, 6, new=20))


def test_the_trace_tells_the_candidates() -> None:
    engine = Engine(ToyBackend())
    handle = engine.submit([1, 2], contrastive(0.6, 4, new=6, traced=True))
    while engine.step():
        pass
    events = [event for event in handle.events if isinstance(event, Contrasted)]
    assert [event.step for event in events] == list(range(6))
    score = 0.0
    for event, token in zip(events, handle.result()[0].tokens):
        nodes = event.candidates
        assert [node.probability for node in nodes] == sorted((node.probability for node in nodes), reverse=True)
        for node in nodes:
            assert node.value == pytest.approx(0.4 * node.probability - 0.6 * node.penalty, abs=1e-6)
            assert node.score == pytest.approx(score + node.log_probability)
        [kept] = [node for node in nodes if node.fate != "pruned"]
        assert (kept.token, kept.value) == (token, max(node.value for node in nodes))
        score = kept.score
    last = next(node for node in events[-1].candidates if node.fate == "finished")
    assert isinstance(last, Contrast)
    assert last.reason == "length"


# --- arguments -------------------------------------------------------------------------------------------------------


def test_the_last_token_is_read_too(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    assert len(ours_alone(ours, [5] * 60, {"max_new_tokens": 4})) == 64
    with pytest.raises(ContextLengthError, match=r"max_new_tokens=5 exceed.* 64 positions. Ask for at most 4"):
        ours_alone(ours, [5] * 60, {"max_new_tokens": 5})
    assert len(ours.generate([[5] * 60], penalty_alpha=0.6, top_k=4)[0]) == 64
    with pytest.raises(ContextLengthError, match=r"penalty_alpha=0.6 does not go with context_overflow"):
        ours_alone(ours, [5] * 60, {"max_new_tokens": 5, "context_overflow": "slide"})
    assert len(ours_alone(ours, [5] * 60, {"max_new_tokens": 4, "context_overflow": "slide"})) == 64


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"penalty_alpha": 1.5}, "penalty_alpha=1.5 cannot work"),
        ({"top_k": None}, "penalty_alpha=0.6 with top_k=None compares no number of tokens. Pass top_k"),
        ({"top_k": 0}, "top_k=0"),
        ({"num_beams": 2}, r"penalty_alpha=0.6 \(contrastive search\) does not go with num_beams=2"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"prompt_lookup_num_tokens": 2}, r"penalty_alpha=0.6 \(contrastive search\) does not go with drafts"),
    ],
)
def test_what_cannot_work_is_refused(llama_pair: MakePair, asked: dict[str, Any], message: str) -> None:
    ours, _ = llama_pair(0)
    with pytest.raises(ArgumentError, match=message):
        ours_alone(ours, [5], asked)
