"""Diverse beams against transformers, row by row: the same sequences and scores, whatever the settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoding.comparing import PROMPTS, compare
from decoding.pairs import MakePair
from loquent import ArgumentError

SETTINGS: dict[str, dict[str, Any]] = {
    "two pairs": {"num_return_sequences": 4},
    "four of one": {"num_beam_groups": 4, "num_return_sequences": 4},
    "two of three": {"num_beams": 6, "num_return_sequences": 6},
    "three of two": {"num_beams": 6, "num_beam_groups": 3, "num_return_sequences": 3},
    "hardly diverse": {"diversity_penalty": 0.05, "num_return_sequences": 4},
    "very diverse": {"diversity_penalty": 30.0, "num_return_sequences": 4},
    "no length penalty": {"length_penalty": 0.0, "num_return_sequences": 3},
    "short ones preferred": {"length_penalty": -1.5, "num_return_sequences": 3},
    "long ones preferred": {"length_penalty": 2.5, "num_return_sequences": 2},
    "stopping early": {"early_stopping": True, "num_return_sequences": 4},
    "never stopping early": {"early_stopping": "never", "num_return_sequences": 4},
    "never, short": {"early_stopping": "never", "length_penalty": -0.7, "num_return_sequences": 4},
    "several ends": {"eos_token_id": [2, 5, 11, 17], "num_return_sequences": 4},
    "padded with the end": {"pad_token_id": 2, "num_return_sequences": 4},
    "no end": {"eos_token_id": None, "num_return_sequences": 4},
    "a single token": {"max_new_tokens": 1, "num_return_sequences": 4},
    "at least so many new": {"min_new_tokens": 6, "num_return_sequences": 4, "early_stopping": True},
    "repetition": {"repetition_penalty": 1.6, "num_return_sequences": 4},
    "no repeated pairs": {"no_repeat_ngram_size": 2, "num_return_sequences": 4},
    "bad words": {"bad_words_ids": [[4], [9, 9], [5, 6, 7]], "num_return_sequences": 4},
    "forced end": {"forced_eos_token_id": 2, "num_return_sequences": 2},
    "suppressed": {"suppress_tokens": [3, 4, 5], "begin_suppress_tokens": [6, 7, 8]},
}


DIVERSE = {"num_beam_groups": 2, "diversity_penalty": 0.8}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_sequences_and_scores_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    for prompt in PROMPTS:
        compare(ours, theirs, prompt, DIVERSE | SETTINGS[name])
    assert ours._engine_slot.engine.pool.held == 0


anything = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([(2, 2), (4, 2), (4, 4), (6, 2), (6, 3)]),
        "diversity_penalty": st.floats(0.01, 5.0),
        "max_new_tokens": st.integers(1, 16),
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "eos_token_id": st.none() | st.lists(st.integers(2, 36), min_size=1, max_size=7, unique=True),
    },
    optional={"repetition_penalty": st.sampled_from([0.7, 1.3]), "no_repeat_ngram_size": st.integers(1, 3)},
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 3), prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6), asked=anything)
def test_any_settings(llama_pair: MakePair, seed: int, prompt: list[int], asked: dict[str, Any]) -> None:
    ours, theirs = llama_pair(seed)
    asked["num_beams"], asked["num_beam_groups"] = asked.pop("shape")
    compare(ours, theirs, prompt, asked | {"num_return_sequences": asked["num_beams"]})
