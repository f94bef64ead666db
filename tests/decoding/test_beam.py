"""Beam search against transformers, row by row: the same sequences, scores and filling, whatever the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoding.pairs import MakePair
from loquent import ArgumentError

PAD = 1
PROMPTS = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8]]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two, both returned": {"num_beams": 2, "num_return_sequences": 2},
    "five, three returned": {"num_beams": 5, "num_return_sequences": 3},
    "no length penalty": {"length_penalty": 0.0, "num_return_sequences": 3},
    "short ones preferred": {"length_penalty": -1.5, "num_return_sequences": 3},
    "long ones preferred": {"length_penalty": 2.5, "num_return_sequences": 2},
    "stopping early": {"early_stopping": True, "num_return_sequences": 3},
    "stopping early, short": {"early_stopping": True, "length_penalty": -1.0, "num_beams": 2},
    "never stopping early": {"early_stopping": "never", "num_return_sequences": 3},
    "never, short": {"early_stopping": "never", "length_penalty": -0.7, "num_return_sequences": 3},
    "never, no penalty": {"early_stopping": "never", "length_penalty": 0.0, "num_beams": 5},
    "several ends": {"eos_token_id": [2, 5, 11, 17], "num_return_sequences": 3},
    "many ends": {"eos_token_id": list(range(2, 20)), "num_return_sequences": 3, "num_beams": 4},
    "no end": {"eos_token_id": None, "num_return_sequences": 3},
    "a single token": {"max_new_tokens": 1, "num_return_sequences": 3},
    "at least so long": {"min_length": 9, "num_return_sequences": 2},
    "at least so many new": {"min_new_tokens": 6, "num_return_sequences": 2, "early_stopping": True},
    "repetition": {"repetition_penalty": 1.6, "num_return_sequences": 3},
    "repetition welcome": {"repetition_penalty": 0.6},
    "no repeated pairs": {"no_repeat_ngram_size": 2, "num_return_sequences": 3},
    "bad words": {"bad_words_ids": [[4], [9, 9], [5, 6, 7]], "num_return_sequences": 3},
    "forced end": {"forced_eos_token_id": 2, "num_return_sequences": 2},
    "suppressed": {"suppress_tokens": [3, 4, 5], "begin_suppress_tokens": [6, 7, 8]},
    "in all": {"max_length": 14, "max_new_tokens": None},
}


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    defaults = {"num_beams": 3, "max_new_tokens": 9, "do_sample": False, "eos_token_id": 2, "pad_token_id": PAD}
    return {name: value for name, value in {**defaults, **asked}.items() if value is not None}


def theirs_alone(model: Any, prompt: list[int], asked: dict[str, Any]) -> Any:
    ids = torch.tensor([prompt])
    chosen = arguments(asked)
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True, output_scores=True, **chosen
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_sequences_and_scores_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    asked = SETTINGS[name]
    for prompt in PROMPTS:
        found = ours.generate(torch.tensor([prompt]), return_dict_in_generate=True, **arguments(asked))
        expected = theirs_alone(theirs, prompt, asked)
        assert found.sequences.tolist() == expected.sequences.tolist()
        torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, rtol=1e-5, atol=1e-4)
    assert ours._engine_slot.engine.space.held == 0


anything = st.fixed_dictionaries(
    {
        "num_beams": st.integers(2, 5),
        "max_new_tokens": st.integers(1, 16),
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "eos_token_id": st.none() | st.lists(st.integers(2, 36), min_size=1, max_size=7, unique=True),
    },
    optional={
        "min_new_tokens": st.integers(1, 5),
        "repetition_penalty": st.sampled_from([0.7, 1.3]),
        "no_repeat_ngram_size": st.integers(1, 3),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 3), prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6), asked=anything)
def test_any_settings(llama_pair: MakePair, seed: int, prompt: list[int], asked: dict[str, Any]) -> None:
    ours, theirs = llama_pair(seed)
    asked["num_return_sequences"] = asked["num_beams"]
    asked["max_new_tokens"] = max(asked["max_new_tokens"], asked.get("min_new_tokens", 0))
    found = ours.generate([prompt], return_dict_in_generate=True, **arguments(asked))
    expected = theirs_alone(theirs, prompt, asked)
    assert found.sequences.tolist() == expected.sequences.tolist()
    torch.testing.assert_close(found.sequences_scores, expected.sequences_scores, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["five, three returned", "stopping early", "several ends", "no repeated pairs"])
def test_a_batch_gives_what_each_row_gives_alone(llama_pair: MakePair, name: str) -> None:
    ours, _ = llama_pair(3)
    copies = SETTINGS[name].get("num_return_sequences", 1)
    batch = ours.generate(PROMPTS, return_dict_in_generate=True, **arguments(SETTINGS[name]))
    width = max(map(len, PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        alone = ours.generate([prompt], return_dict_in_generate=True, **arguments(SETTINGS[name]))
        mine = slice(row * copies, (row + 1) * copies)
        new = batch.sequences[mine, width:]
        assert new[:, : alone.sequences.shape[1] - len(prompt)].tolist() == alone.sequences[:, len(prompt) :].tolist()
        assert set(new[:, alone.sequences.shape[1] - len(prompt) :].flatten().tolist()) <= {PAD}
        torch.testing.assert_close(batch.sequences_scores[mine], alone.sequences_scores, rtol=0, atol=1e-5)


def test_what_is_filled_in_behind_ended_rows(llama_pair: MakePair) -> None:
    """The pad token that was set, 0 too; the first end token where none was."""
    ours, _ = llama_pair(0)
    asked = arguments({"num_return_sequences": 3, "eos_token_id": list(range(2, 20)), "length_penalty": 0.0})
    for pad, filled in ((0, 0), (PAD, PAD), (None, 2)):
        rows = ours.generate([PROMPTS[0]], **{**asked, "pad_token_id": pad})[:, len(PROMPTS[0]) :].tolist()
        ends = [next(i for i, token in enumerate(row) if token in range(2, 20)) for row in rows]
        assert len(set(ends)) > 1
        assert all(set(row[end + 1 :]) <= {filled} for row, end in zip(rows, ends))


def test_rules_that_leave_too_few_continuations_are_refused(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    two_left = {"suppress_tokens": list(range(3, 37)), "max_new_tokens": 1, "eos_token_id": None}
    asked = {**two_left, "do_sample": False, "num_beams": 3}
    assert ours.generate([[5]], num_return_sequences=2, **asked).shape == (2, 2)
    with pytest.raises(ArgumentError, match="leave 3 continuations, where num_return_sequences=4"):
        ours.generate([[5]], num_return_sequences=4, **{**asked, "num_beams": 4})
    with pytest.raises(ArgumentError, match="leave 0 continuations"):
        ours.generate([[5]], **{**asked, "suppress_tokens": list(range(37))})
    assert ours._engine_slot.engine.space.held == 0


def test_logits_that_are_no_numbers_are_refused(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(4)
    with torch.no_grad():
        ours.head.weight[3] = float("nan")
    for asked in ({"num_beams": 2}, {}, {"do_sample": True}):
        with pytest.raises(ArgumentError, match="not numbers"):
            ours.generate([[5]], **asked)
