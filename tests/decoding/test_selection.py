"""Selection: draws follow their distribution, nothing impossible is drawn, and ties go to the lower token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.decoding.arrays import log_softmax, to_numpy
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.selection import best, drawn, most_likely

LIBRARIES: dict[str, Callable[[Any], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)

scores_rows = st.lists(
    st.lists(st.sampled_from([-math.inf, -3.0, 0.0, 0.5, 2.0]), min_size=7, max_size=7).filter(
        lambda row: max(row) > -math.inf
    ),
    min_size=1,
    max_size=4,
)


@both
def test_draws_follow_the_distribution(library: Callable[[Any], Any]) -> None:
    """Chi-square with 5 degrees of freedom: p = 0.001 at 20.5."""
    probabilities = np.array([0.4, 0.25, 0.0, 0.2, 0.1, 0.04, 0.01])
    with np.errstate(divide="ignore"):
        scores = np.log(probabilities).astype(np.float32)
    count = 8000
    numbers = [uniform(seed, 3, Purpose.DRAW) for seed in range(count)]
    tokens = drawn(library(np.tile(scores, (count, 1))), numbers)
    observed, likely = np.bincount(tokens, minlength=7), probabilities > 0
    assert observed[2] == 0
    expected = probabilities[likely] * count
    assert ((observed[likely] - expected) ** 2 / expected).sum() < 20.5


@settings(max_examples=100, deadline=None)
@given(scores_rows, st.lists(st.floats(0, 1, exclude_max=True) | st.just(1 - 2**-53), min_size=4, max_size=4))
def test_a_draw_is_the_token_where_the_sum_passes_the_number(rows: list[list[float]], numbers: list[float]) -> None:
    array, numbers = np.array(rows, np.float32), numbers[: len(rows)]
    found = {name: drawn(library(array), numbers).tolist() for name, library in LIBRARIES.items()}
    assert found["numpy"] == found["torch"]
    for row, number, token in zip(rows, numbers, found["numpy"]):
        assert row[token] > -math.inf
        weights = [math.exp(score - max(row)) for score in row]
        target = number * sum(weights)
        assert sum(weights[:token]) <= target + 1e-9
        assert target <= sum(weights[: token + 1]) + 1e-9


@both
def test_a_wide_vocabulary_loses_nothing_to_rounding(library: Callable[[Any], Any]) -> None:
    """A million equal tokens behind a likely one: sums in float32 would stop growing."""
    scores = np.full((1, 1_000_001), math.log(1e-6), np.float32)
    scores[0, 0] = math.log(16.0)
    tokens = [int(drawn(library(scores), [number])[0]) for number in (0.0, 0.94, 0.97, 1 - 2**-53)]
    assert tokens[0] == 0
    assert tokens[1] == 0
    assert abs(tokens[2] - (0.97 * 17 - 16) * 1e6) < 2
    assert tokens[3] == 1_000_000


@settings(max_examples=100, deadline=None)
@given(scores_rows, st.integers(1, 9))
def test_the_best_are_in_order_and_ties_by_token(rows: list[list[float]], count: int) -> None:
    counts = [max(1, count - row) for row in range(len(rows))]
    for library in LIBRARIES.values():
        for row, own, found in zip(rows, counts, best(library(np.array(rows, np.float32)), counts)):
            assert len(found.tokens) == min(own, 7)
            assert found.scores.tolist() == sorted(row, reverse=True)[:own]
            for token, score in zip(found.tokens.tolist(), found.scores.tolist()):
                assert row[token] == score
            pairs = list(zip((-found.scores).tolist(), found.tokens.tolist()))
            assert pairs == sorted(pairs)


@both
def test_whoever_else_asks_the_lower_tokens_of_equal_ones_are_the_best(library: Callable[[Any], Any]) -> None:
    """Logits of few bits tie often; which of them are candidates must not depend on the library or the neighbors."""
    rows = np.random.default_rng(0).integers(0, 6, (40, 300)).astype(np.float32)
    counts = np.random.default_rng(1).integers(1, 80, 40).tolist()
    for row, count, found in zip(rows, counts, best(library(rows), counts)):
        assert found.tokens.tolist() == sorted(range(300), key=lambda token: (-row[token], token))[:count]


@both
def test_the_most_likely_of_equal_tokens_is_the_first(library: Callable[[Any], Any]) -> None:
    rows = np.zeros((3, 50), np.float32)
    rows[0, [7, 20]] = rows[1, [49, 3]] = 1.0
    assert most_likely(library(rows)).tolist() == [7, 3, 0]


@both
def test_log_softmax(library: Callable[[Any], Any]) -> None:
    rows = np.array([[1.0, 2.0, -math.inf], [1000.0, 1000.0, 0.0]], np.float32)
    expected = torch.log_softmax(torch.tensor(rows), -1).numpy()
    np.testing.assert_allclose(to_numpy(log_softmax(library(rows))), expected, rtol=1e-6)
