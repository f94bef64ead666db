"""Choices made in native code are those of the array rules, token for token, whatever is asked of which scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decoding.chosen import choose
from loquent.decoding.choice import NO_NUMBERS, NOTHING_LEFT, Choice
from loquent.decoding.wants import Odds, Proposal
from loquent.native import core, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

GPT2 = 50257


def make_row(kind: str, size: int, seed: int) -> np.ndarray:
    """Scores as models give them, and worse; no two differ by rounding alone."""
    random = np.random.default_rng(seed)
    row = random.normal(0, 3, size)
    if kind == "ties":
        row = np.round(row)
    elif kind == "flat":
        row = np.round(row * 8) / 64
    elif kind == "outlier":
        row[random.integers(size)] = 60
    elif kind == "masked":
        row[random.random(size) < 0.7] = -np.inf
        row[random.random(size) < 0.2] = np.finfo(np.float32).min
        row[random.integers(size)] = 0.5
    elif kind == "equal":
        row[:] = -1.5
    return row.astype(np.float32)


KINDS = ("normal", "ties", "flat", "outlier", "masked", "equal")
rows = st.builds(
    make_row,
    st.sampled_from(KINDS),
    st.one_of(st.integers(1, 70), st.integers(250, 600), st.sampled_from([4096, 5000])),
    st.integers(0, 2**32),
)
tokens = st.lists(st.integers(0, 2**20), min_size=1, max_size=30)


@st.composite
def choices(draw: st.DrawFn, size: int) -> Choice:
    choice = Choice(seed=draw(st.integers(0, 2**64 - 1)), position=draw(st.integers(0, 2**40)))
    choice.sampled = draw(st.booleans())
    for field, values in {
        "penalty": st.sampled_from([0.5, 1.1, 1.7]),
        "seen": tokens.map(lambda ids: np.asarray(ids) % size),
        "banned": tokens.map(lambda ids: np.asarray(ids) % size),
        "temperature": st.floats(0.1, 3),
        "top_k": st.one_of(st.integers(1, 60), st.integers(1, 6000)),
        "top_p": st.floats(0, 0.99),
        "min_p": st.floats(1e-4, 1),
    }.items():
        if draw(st.booleans()):
            setattr(choice, field, draw(values))
    return choice


def native(row: np.ndarray, choice: Choice) -> Any:
    return core().choose(row.copy(), choice)


def by_rules(row: np.ndarray, choice: Choice) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are subtracted, masks grow beyond their size
        return choose(row.copy(), choice)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), row=rows)
def test_tokens(data: st.DataObject, row: np.ndarray) -> None:
    choice = data.draw(choices(len(row)))
    assert native(row, choice) == by_rules(row, choice)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), row=rows, count=st.one_of(st.integers(1, 12), st.integers(1, 400)), normalized=st.booleans())
def test_best(data: st.DataObject, row: np.ndarray, count: int, normalized: bool) -> None:
    choice = data.draw(choices(len(row)))
    # The sum of a softmax is rounded differently, and where that decides whether scores are equal so is their order.
    choice.normalized, choice.best = normalized, count
    if normalized:
        choice.temperature = 1.0
        row = np.round(row)
    found, expected = native(row, choice), by_rules(row, choice)
    if isinstance(expected, str):
        assert found == expected
        return
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-6, atol=2e-6)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), row=rows)
def test_drafts(data: st.DataObject, row: np.ndarray) -> None:
    choice = data.draw(choices(len(row)))
    choice.draft = True
    found, expected = native(row, choice), by_rules(row, choice)
    if isinstance(expected, str):
        assert found == expected
        return
    assert found[0] == expected[0]
    tokens, probabilities = found[1:]
    assert (np.diff(tokens) > 0).all()
    sparse = probabilities > 1e-300  # scores far below the highest one are kept, and weigh nothing
    np.testing.assert_array_equal(tokens[sparse], expected[1][expected[2] > 1e-300])
    np.testing.assert_allclose(probabilities[sparse], expected[2][expected[2] > 1e-300], rtol=1e-5)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), row=rows, kind=st.sampled_from(["none", "near", "other", "itself"]))
def test_offers(data: st.DataObject, row: np.ndarray, kind: str) -> None:
    choice = data.draw(choices(len(row)))
    choice.sampled = True
    token = data.draw(st.integers(0, len(row) - 1))
    if kind == "none":
        choice.offer = Proposal(token)
    else:
        noise = np.random.default_rng(5).normal(0, 1, len(row)).astype(np.float32)
        offered = {"near": row + noise / 10, "other": noise, "itself": row}[kind]
        choice.draft = True
        drafted = by_rules(offered, choice)
        assume(not isinstance(drafted, str))
        choice.draft, choice.offer = False, Proposal(drafted[0], 1.0, Odds(drafted[1], drafted[2]))
    assert native(row, choice) == by_rules(row, choice)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5, "top_k": 20, "top_p": 0.9}], ids=str)
def test_drawing_a_draft_and_verifying_it_is_drawing(settings: dict[str, Any]) -> None:
    row = make_row("normal", 40, 3)
    other = row + make_row("normal", 40, 4) / 3
    choice = Choice(sampled=True, draft=True, **settings)
    _, tokens, probabilities = by_rules(row, choice)
    expected = np.zeros(40)
    expected[tokens] = probabilities * 20000
    seen = np.zeros(40)
    stood = 0
    for position in range(20000):
        choice.position, choice.draft, choice.offer = position, True, None
        token, *odds = native(other, choice)
        choice.draft, choice.offer = False, Proposal(token, 1.0, Odds(*odds))
        chosen = native(row, choice)
        seen[chosen] += 1
        stood += chosen == token
    assert 0 < stood < 20000
    assert not seen[expected == 0].any()
    likely = expected >= 5
    statistic = ((seen - expected)[likely] ** 2 / expected[likely]).sum()
    freedom = likely.sum() - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)  # 1 in 10,000; positions are fixed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampled": True},
        {"sampled": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "penalty": 1.3},
        {"sampled": True, "top_p": 0.95},
        {"sampled": True, "top_k": 20000, "min_p": 0.001},
        {"best": 8},
    ],
    ids=str,
)
def test_a_whole_vocabulary(kind: str, settings: dict[str, Any]) -> None:
    row = make_row(kind, GPT2, 1)
    choice = Choice(seen=np.random.default_rng(2).integers(0, GPT2, 512), **settings)
    for position in range(5):
        choice.position = position
        np.testing.assert_array_equal(native(row, choice), by_rules(row, choice))


@pytest.mark.parametrize("settings", [{}, {"sampled": True}, {"sampled": True, "top_k": 2}, {"best": 2}], ids=str)
@pytest.mark.parametrize("size", [1, 17, 300])
def test_rows_without_an_answer(settings: dict[str, Any], size: int) -> None:
    row = np.zeros(size, np.float32)
    assert native(row, Choice(banned=np.arange(size), **settings)) == NOTHING_LEFT
    row[size // 2] = np.nan
    assert native(row, Choice(**settings)) == NO_NUMBERS


def test_offers_that_are_none_are_refused() -> None:
    row, odds = np.zeros(9, np.float32), Odds(np.array([1, 2]), np.array([1.0]))
    with pytest.raises(ValueError, match="a probability for each token"):
        native(row, Choice(sampled=True, offer=Proposal(1, 1.0, odds)))
    with pytest.raises(IndexError, match="token 9 is none of the vocabulary's 9"):
        native(row, Choice(sampled=True, offer=Proposal(9)))


@pytest.mark.parametrize("field", ["seen", "banned"])
@pytest.mark.parametrize("token", [-1, 9])
def test_tokens_that_are_not_there_are_refused(field: str, token: int) -> None:
    with pytest.raises(IndexError, match=rf"token {token} is none of the vocabulary's 9"):
        native(np.zeros(9, np.float32), Choice(penalty=2.0, **{field: np.array([1, token])}))
