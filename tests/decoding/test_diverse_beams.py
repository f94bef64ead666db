"""Diverse beams against transformers, row by row: the same sequences and scores, whatever the settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BeamSearchScorer,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicCache

from decoding.comparing import PAD, PROMPTS, arguments, compare, unpadded
from decoding.pairs import MakePair
from loquent import ArgumentError
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import diverse_beam_search
from loquent.decoding.task import Decoding
from loquent.generation import engine_of

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
    assert ours._engine_slot.engine.space.held == 0


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


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_one_group_is_beams_by_the_older_rules(llama_pair: MakePair, early_stopping: bool | str) -> None:
    """`num_beam_groups=1` selects the newer rules in both, so that strategy and scorer are called directly."""
    ours, theirs = llama_pair(1)
    rules = {"length_penalty": 0.6, "early_stopping": early_stopping}
    for prompt in PROMPTS:
        longest, ids = len(prompt) + 9, torch.tensor([prompt])
        scorer = BeamSearchScorer(1, 3, ids.device, 0.6, early_stopping, num_beam_hyps_to_keep=3, max_length=longest)
        config = GenerationConfig(eos_token_id=2, pad_token_id=PAD, output_scores=True, return_dict_in_generate=True)
        theirs._prepare_special_tokens(config)
        expected = theirs._group_beam_search(
            ids.repeat(3, 1),
            scorer,
            LogitsProcessorList(),
            StoppingCriteriaList([MaxLengthCriteria(longest)]),
            config,
            synced_gpus=False,
            use_cache=True,
            past_key_values=DynamicCache(),
        )
        strategy = partial(diverse_beam_search, width=3, groups=1, diversity_penalty=0.5, **rules)
        handle = engine_of(ours).submit(prompt, Decoding(strategy, Stopping(9, eos=(2,)), returned=3, branches=3))
        while not handle.done:
            engine_of(ours).step()
        rows = [unpadded(row, len(prompt), arguments({})) for row in expected.sequences.tolist()]
        assert [list(found.tokens) for found in handle.result()] == rows
        scores = [found.score for found in handle.result()]
        assert scores == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def test_a_batch_gives_what_each_row_gives_alone(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(3)
    asked = arguments(DIVERSE | {"num_return_sequences": 4, "eos_token_id": [2, 11]})
    batch = ours.generate(PROMPTS, **asked)[:, max(map(len, PROMPTS)) :].tolist()
    for row, prompt in enumerate(PROMPTS):
        alone = ours.generate([prompt], **asked)[:, len(prompt) :].tolist()
        assert [tokens[: len(alone[0])] for tokens in batch[4 * row : 4 * row + 4]] == alone


def test_a_strong_penalty_parts_the_groups(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    asked = {"num_beams": 5, "num_beam_groups": 5, "num_return_sequences": 5, "eos_token_id": None}
    rows = ours.generate([[3, 4]], **arguments(asked | {"diversity_penalty": 1000.0}))[:, 2:]
    assert all(len(set(column)) == 5 for column in rows.T.tolist())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beam_groups": 3}, "num_beams=4 cannot be split"),
        ({"num_beams": 1, "num_beam_groups": 2}, "num_beam_groups=2 has no effect with num_beams=1"),
        ({"num_beam_groups": 2, "diversity_penalty": 0.0}, "makes equal groups"),
        ({"do_sample": True}, "does not go with num_beam_groups=2"),
        ({"num_return_sequences": 5}, "more than num_beams=4"),
    ],
)
def test_what_cannot_work_is_refused(llama_pair: MakePair, asked: dict[str, Any], message: str) -> None:
    ours, _ = llama_pair(0)
    with pytest.raises(ArgumentError, match=message):
        ours.generate([[3, 4]], **arguments(DIVERSE | asked))
