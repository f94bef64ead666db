"""The rules of llama.cpp, vLLM and text-generation-webui: equal to plain Python on numpy and torch, rows apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding import references
from loquent.cache import Memory
from loquent.decoding.arrays import to_numpy
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules import (
    DRY,
    XTC,
    AllowedTokens,
    Context,
    FrequencyPresence,
    Mirostat,
    PrefixAllowed,
    RemoveInvalid,
    Rule,
    SequenceBias,
    TopH,
    TopNSigma,
    apply_rules,
)
from loquent.errors import ArgumentError

VOCABULARY = 9
LIBRARIES: dict[str, Callable[[Any], Any]] = {"numpy": np.array, "torch": torch.tensor}

finite_rows = st.lists(st.floats(-6, 6, width=16), min_size=VOCABULARY, max_size=VOCABULARY)
rows = st.lists(st.floats(-6, 6, width=16) | st.just(-math.inf), min_size=VOCABULARY, max_size=VOCABULARY).filter(
    lambda row: max(row) > -math.inf
)
texts = st.lists(st.integers(0, 3), min_size=1, max_size=24)
libraries = st.sampled_from(sorted(LIBRARIES))


def applied(
    library: str, row: list[float], rule: Rule, tokens: list[int], prompt: int = 1, seed: int = 0
) -> np.ndarray:
    """Alone, and beside a row of another context, which changes nothing."""
    context = Context(np.array(tokens, np.int64), prompt, seed)
    other = Context(np.array([1, 2, 1], np.int64), 1, 5)
    make = LIBRARIES[library]
    found = to_numpy(apply_rules(make(np.array([row], np.float32)), [(rule,)], [context]))
    context.memory = Memory()
    both = to_numpy(
        apply_rules(make(np.array([[0.5] * VOCABULARY, row], np.float32)), [(rule,), (rule,)], [other, context])
    )
    np.testing.assert_array_equal(both[1], found[0])
    return found[0]


def assert_same(found: np.ndarray, wanted: list[float]) -> None:
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    np.testing.assert_allclose(found, np.array(wanted, np.float32), rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    texts,
    st.integers(1, 4),
    st.sampled_from([(), ((2,),), ((2,), (3,)), ((1, 2),), ((1,), (1, 2)), ((0, 1, 2), (3, 3))]),
    st.sampled_from([0, 3, 10]),
    st.sampled_from([1.0, 1.75, 3.0]),
    libraries,
)
def test_dry(
    text: list[int], allowed: int, breakers: tuple[tuple[int, ...], ...], window: int, base: float, library: str
) -> None:
    lost = references.dry(text, 0.8, base, allowed, breakers, window)
    found = applied(library, [0.0] * VOCABULARY, DRY(0.8, base, allowed, breakers, window), text)
    assert_same(found, [-lost.get(token, 0.0) for token in range(VOCABULARY)])


def test_dry_of_a_long_loop_is_bounded_and_quick() -> None:
    """llama.cpp bounds the power to what float32 holds."""
    text = [1, 2, 3] * 2000
    found = applied("numpy", [0.0] * VOCABULARY, DRY(1.0, 1.75, 2), text)
    exponent = int(88.7228391 / math.log(1.75))
    assert math.isclose(found[1], -(1.75**exponent), rel_tol=1e-5)
    assert np.flatnonzero(found).tolist() == [1]


@settings(max_examples=150, deadline=None)
@given(rows, st.floats(0.5, 3), libraries)
def test_top_n_sigma(row: list[float], count: float, library: str) -> None:
    finite = [score for score in row if score > -math.inf]
    border = max(row) - count * float(np.std(finite))
    if any(abs(score - border) < 1e-4 for score in finite):
        return  # rounding decides
    assert_same(applied(library, row, TopNSigma(count), [1]), references.top_n_sigma(row, count))


def test_top_n_sigma_is_the_same_at_every_temperature_and_offset() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        row = random.standard_normal(VOCABULARY)
        kept = [
            np.isfinite(applied("numpy", (row * scale + offset).tolist(), TopNSigma(1.2), [1])).tolist()
            for scale, offset in ((1, 0), (0.25, 0), (4, 0), (1, 3000))
        ]
        assert kept[0] == kept[1] == kept[2] == kept[3]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-6, 6, width=16), min_size=VOCABULARY, max_size=VOCABULARY, unique=True), st.floats(0.05, 1))
def test_top_h(row: list[float], share: float) -> None:
    wanted = references.top_h(row, share)
    if references.top_h(row, share + 1e-5) != references.top_h(row, max(share - 1e-5, 1e-9)):
        return  # rounding decides
    for library in LIBRARIES:
        assert_same(applied(library, row, TopH(share), [1]), wanted)


def test_top_h_is_over_the_hundred_best() -> None:
    row = np.linspace(0, 1, 300).astype(np.float32)
    for make in LIBRARIES.values():
        found = to_numpy(apply_rules(make(row[None].copy()), [(TopH(1.0),)], [Context(np.array([1]), 1)]))[0]
        assert np.flatnonzero(np.isfinite(found)).tolist() == list(range(200, 300))


@settings(max_examples=150, deadline=None)
@given(rows, st.floats(0.02, 0.6), libraries)
def test_xtc(row: list[float], threshold: float, library: str) -> None:
    if any(abs(chance - threshold) < 1e-6 for chance in references.probabilities(row)):
        return  # rounding decides
    assert_same(applied(library, row, XTC(1.0, threshold), [1]), references.xtc(row, threshold))
    assert_same(applied(library, row, XTC(0.0, threshold), [1]), row)


def test_xtc_acts_as_often_as_it_is_to() -> None:
    """A binomial of 4,000 tries at 0.3: within 4 standard deviations of 1,200, and by its own numbers."""
    rule, acts = XTC(0.3, 0.1), 0
    for seed in range(40):
        for length in range(1, 101):
            context = Context(np.zeros(length, np.int64), 1, seed)
            acts += rule.acts(context)
            assert rule.acts(context) == (uniform(seed, length, Purpose.XTC) < 0.3)
    assert abs(acts - 1200) < 4 * math.sqrt(4000 * 0.3 * 0.7)


@settings(max_examples=100, deadline=None)
@given(finite_rows, texts, st.integers(0, 24), st.floats(-2, 2), st.floats(-2, 2), libraries)
def test_frequency_and_presence(
    row: list[float], text: list[int], prompt: int, frequency: float, presence: float, library: str
) -> None:
    prompt = min(prompt, len(text))
    found = applied(library, row, FrequencyPresence(frequency, presence), text, prompt)
    assert_same(found, references.occurrences(row, text[prompt:], frequency, presence))


def test_biases_of_one_token_add_up() -> None:
    rule = SequenceBias((((4,), 1.0), ((1, 4), 2.0), ((2, 1, 4), 4.0), ((4,), 0.5), ((0, 4), 100.0)))
    for library in LIBRARIES:
        assert applied(library, [0.0] * VOCABULARY, rule, [0, 2, 1])[4] == 7.5
        assert applied(library, [0.0] * VOCABULARY, rule, [1])[4] == 3.5


def test_allowed_tokens() -> None:
    for library in LIBRARIES:
        found = applied(library, [*range(VOCABULARY)], AllowedTokens((7, 2, 2), VOCABULARY), [1])
        assert {token: found[token] for token in np.flatnonzero(np.isfinite(found))} == {2: 2.0, 7: 7.0}


def test_a_function_says_what_is_allowed() -> None:
    asked = []

    def allow(row: int, ids: Any) -> Any:
        asked.append((row, type(ids), ids.tolist()))
        return [3, 5] if row else torch.tensor([1])

    contexts = [Context(np.array(tokens), 1) for tokens in ([4, 2], [7])]
    rules: list[tuple[Rule, ...]] = [(PrefixAllowed(allow, 1),), (PrefixAllowed(allow, 0),)]
    for make in LIBRARIES.values():
        found = to_numpy(apply_rules(make(np.ones((2, VOCABULARY), np.float32)), rules, contexts))
        assert np.argwhere(np.isfinite(found)).tolist() == [[0, 3], [0, 5], [1, 1]]
    assert asked == [(row, kind, ids) for kind in (np.ndarray, torch.Tensor) for row, ids in ((1, [4, 2]), (0, [7]))]


@pytest.mark.parametrize("returned", [[], None, [9], [-1], ["a"], [0.5]])
def test_what_a_function_cannot_allow(returned: Any) -> None:
    with pytest.raises(ArgumentError, match=r"prefix_allowed_tokens_fn .*Return"):
        applied("numpy", [0.0] * VOCABULARY, PrefixAllowed(lambda *_: returned, 0), [1])


def test_invalid_values_are_removed() -> None:
    most = float(np.finfo(np.float32).max)
    for make in LIBRARIES.values():
        scores = make(np.array([[math.nan, math.inf, -math.inf, 2.0]], np.float32))
        found = to_numpy(apply_rules(scores, [(RemoveInvalid(),)], [Context(np.array([1]), 1)]))
        np.testing.assert_array_equal(found, np.array([[0.0, most, -most, 2.0]], np.float32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(finite_rows, st.integers(0, VOCABULARY - 1)), min_size=1, max_size=8),
    st.floats(0.3, 4),
    st.floats(0, 1),
    libraries,
)
def test_mirostat_one_by_one(steps: list[tuple[list[float], int]], tau: float, eta: float, library: str) -> None:
    """Also where tokens come that it had cut off: they leave mu as it is."""
    wanted = references.mirostat([row for row, _ in steps], [token for _, token in steps], tau, eta)
    rule, memory, tokens = Mirostat(tau, eta), Memory(), [0, 1]
    for (row, token), (mu, left) in zip(steps, wanted):
        if any(abs(-math.log2(chance) - mu) < 1e-3 for chance in references.probabilities(row)):
            return  # rounding decides
        context = Context(np.array(tokens), 2, 0, memory)
        found = to_numpy(apply_rules(LIBRARIES[library](np.array([row], np.float32)), [(rule,)], [context]))
        assert_same(found[0], left)
        tokens.append(token)


@pytest.mark.parametrize("library", LIBRARIES)
def test_mirostat_of_drafts_that_are_read_at_once_and_rewound(library: str) -> None:
    """Rows of one sequence in one pass, then fewer of them stand, then it goes on: as token by token."""
    random = np.random.default_rng(4)
    rule, make = Mirostat(1.5, 0.4), LIBRARIES[library]
    scores = {length: random.standard_normal(VOCABULARY).astype(np.float32) * 2 for length in range(2, 12)}
    text = [0, 1, 4, 2, 7, 5, 3, 8, 6, 1]

    def processed(memory: Memory, tokens: list[int], lengths: list[int]) -> np.ndarray:
        contexts = [Context(np.array(tokens[:length]), 2, 0, memory) for length in lengths]
        array = make(np.stack([scores[length] for length in lengths]))
        return to_numpy(apply_rules(array, [(rule,)] * len(lengths), contexts))

    alone = Memory()
    expected = {length: processed(alone, text, [length])[0] for length in range(2, 9)}
    memory = Memory()
    drafted = [0, 1, 4, 2, 6, 6, 6]  # of which the first four will stand
    first = processed(memory, drafted, [2, 3, 4, 5, 6])
    for row, length in enumerate((2, 3, 4)):
        np.testing.assert_array_equal(first[row], expected[length])
    memory.rewind(4)
    twin = memory.fork()
    np.testing.assert_array_equal(processed(memory, text, [5, 6, 7]), [expected[length] for length in (5, 6, 7)])
    np.testing.assert_array_equal(processed(twin, text, [5])[0], expected[5])
    np.testing.assert_array_equal(processed(memory, text, [8])[0], expected[8])


def test_mirostat_keeps_surprise_near_its_target() -> None:
    """Over 3,000 draws from flat and steep rows the mean surprise among what is left is tau within 0.05 bits."""
    random = np.random.default_rng(1)
    tau, memory, tokens = 2.0, Memory(), [0]
    rule, surprises = Mirostat(tau, 0.1), []
    for _ in range(3000):
        row = (random.standard_normal(64) * random.uniform(0.5, 2)).astype(np.float32)
        context = Context(np.array(tokens, np.int64), 1, 0, memory)
        left = apply_rules(row[None], [(rule,)], [context])[0]
        chances = np.exp(left - left.max())
        chances /= chances.sum()
        token = int(random.choice(64, p=chances))
        surprises.append(-math.log2(chances[token]))
        tokens.append(token)
    assert abs(np.mean(surprises) - tau) < 0.05
