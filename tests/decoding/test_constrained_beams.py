"""Constrained beams against transformers, row by row: the same sequences and scores, whatever the constraints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loquent
from decoding.comparing import PROMPTS, compare
from decoding.pairs import MakePair
from loquent import ArgumentError

SETTINGS: dict[str, dict[str, Any]] = {
    "a token": {"force_words_ids": [[10]]},
    "a phrase": {"force_words_ids": [[10, 11, 12]]},
    "of which the prompt has some": {"force_words_ids": [[9, 9, 20], [5, 6]]},
    "two": {"force_words_ids": [[10, 11], [20]]},
    "two that begin alike": {"force_words_ids": [[10, 11], [10, 12, 13]]},
    "one with repetitions": {"force_words_ids": [[10, 10, 11]]},
    "alternatives": {"force_words_ids": [[[10, 11], [12], [20, 21, 22]]]},
    "alternatives and a phrase": {"force_words_ids": [[[10, 11], [20]], [12, 13]]},
    "alternatives of one length": {"force_words_ids": [[[10, 11], [20, 21]], [[12], [13]]]},
    "more than there is room for": {"force_words_ids": [[10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25]]},
    "few beams": {"num_beams": 2, "force_words_ids": [[10, 11, 12], [20, 21]], "num_return_sequences": 2},
    "many beams": {"num_beams": 8, "force_words_ids": [[10, 11], [20]], "num_return_sequences": 5},
    "no length penalty": {"length_penalty": 0.0, "force_words_ids": [[10, 11]]},
    "short ones preferred": {"length_penalty": -1.5, "force_words_ids": [[10, 11]]},
    "long ones preferred": {"length_penalty": 2.5, "force_words_ids": [[10, 11]]},
    "stopping early": {"early_stopping": True, "force_words_ids": [[10, 11]]},
    "never stopping early": {"early_stopping": "never", "force_words_ids": [[10]]},
    "several ends": {"eos_token_id": [2, 5, 11, 17], "force_words_ids": [[10, 12]]},
    "no end": {"eos_token_id": None, "force_words_ids": [[10, 12]]},
    "a single token": {"max_new_tokens": 1, "force_words_ids": [[10, 12]]},
    "long": {"max_new_tokens": 40, "force_words_ids": [[10, 12], [20, 21]]},
    "repetition": {"repetition_penalty": 1.6, "force_words_ids": [[10, 12]]},
    "bad words": {"bad_words_ids": [[12], [4]], "force_words_ids": [[10, 12], [20]]},
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_sequences_and_scores_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    for prompt in PROMPTS:
        for copies in (1, SETTINGS[name].get("num_return_sequences", 3)):
            compare(ours, theirs, prompt, SETTINGS[name] | {"num_return_sequences": copies})
    assert ours._engine_slot.engine.pool.held == 0


words = st.lists(st.integers(3, 12), min_size=1, max_size=4)


def _independent(phrases: list[list[int]]) -> bool:
    """Whether no phrase begins another: such alternatives are refused."""
    return not any(a[: len(b)] == b for i, a in enumerate(phrases) for j, b in enumerate(phrases) if i != j)


anything = st.fixed_dictionaries(
    {
        "num_beams": st.integers(2, 6),
        "max_new_tokens": st.integers(1, 16),
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "eos_token_id": st.none() | st.lists(st.integers(13, 36), min_size=1, max_size=4, unique=True),
        "force_words_ids": st.lists(
            words | st.lists(words, min_size=1, max_size=3).filter(_independent), min_size=1, max_size=3
        ),
    },
    optional={"repetition_penalty": st.sampled_from([0.7, 1.3])},
)


@pytest.fixture
def copied_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, copies of transformers' DisjunctiveConstraint share the list of what they have met."""

    def copy_of(self: Any, stateful: bool = False) -> Any:
        twin = transformers.DisjunctiveConstraint(self.token_ids)
        if stateful:
            twin.current_seq, twin.completed = list(self.current_seq), self.completed
        return twin

    monkeypatch.setattr(transformers.DisjunctiveConstraint, "copy", copy_of)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 3), prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6), asked=anything, data=st.data()
)
def test_any_settings(
    llama_pair: MakePair, copied_lists: None, seed: int, prompt: list[int], asked: dict[str, Any], data: st.DataObject
) -> None:
    ours, theirs = llama_pair(seed)
    compare(ours, theirs, prompt, asked | {"num_return_sequences": data.draw(st.integers(1, asked["num_beams"]))})
