"""Scored rows, the head alone and truncated plans: the bits of the whole, in any company, and as weights change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.decoding.choice import Choice
from loquent.engine.backend import Segment
from loquent.native import core, why_unavailable
from loquent.parts import LanguageHead
from properties.models import EVERY, VOCABULARY, tiny

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PAGE = 4
WIDTH = 16
PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int4")


def borrowed(model: Any) -> Any:
    from loquent.native.lent import borrowing_backend

    return borrowing_backend(model.lend_weights())


@cache
def backend_of(name: str) -> Any:
    return borrowed(tiny(name))


class Packed:
    """A model's weights packed in some precision, and a head with a bias of its own."""

    def __init__(self, precision: str) -> None:
        loan = tiny("gpt2").lend_weights()
        random = np.random.default_rng(2)
        self.decoder = replace(loan.decoder, head=LanguageHead(tied=False, bias=True))
        self.numbers = {name: lent.numbers for name, lent in loan.weights.items()}
        self.numbers["head.weight"] = random.standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
        self.numbers["head.bias"] = random.standard_normal(VOCABULARY).astype(np.float32)
        self.precision = precision

    def matrix(self, name: str) -> Any:
        matrix = core().Matrix(self.precision, *self.numbers[name].shape)
        matrix.fill(0, self.numbers[name], "float32")
        return matrix

    def vector(self, name: str) -> np.ndarray:
        return self.numbers[name]


@cache
def packed(precision: str) -> Any:
    from loquent.native.backend import NativeBackend

    weights = Packed(precision)
    return NativeBackend(weights.decoder, weights)


def bits(rows: Any) -> np.ndarray:
    return np.asarray(rows).copy().view(np.uint32)


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length)


def run(backend: Any, segments: list[dict[str, Any]], layers: tuple[int, ...] = ()) -> Any:
    """One step of some sequences, each on pages of its own, from their beginning."""
    store, made, used = backend.open_store(PAGE), [], 0
    for fields in segments:
        pages = -(-len(fields["tokens"]) // PAGE)
        tables = (np.arange(used, used + pages),) * len(store.groups)
        made.append(Segment(**{"start": 0, "tables": tables, "span": 60} | fields))
        used += pages
    for group in range(len(store.groups)):
        store.resize(group, used)
    return backend.run(store, made, layers)


# --- scored rows -----------------------------------------------------------------------------------------------------


@st.composite
def counted(draw: st.DrawFn) -> tuple[int, int, int | None]:
    """How many tokens a segment has, how many rows it wants, and how many of them are scored."""
    length = draw(st.integers(1, 20))
    rows = draw(st.integers(0, length))
    return length, rows, draw(st.none() | st.integers(0, rows))


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20, deadline=None)
@given(st.lists(counted(), min_size=1, max_size=5), st.sets(st.integers(0, 2)).map(tuple))
def test_any_rows_and_any_scored_ones_are_those_of_all(
    name: str, counts: list[tuple[int, int, int | None]], layers: tuple[int, ...]
) -> None:
    backend = backend_of(name)
    everything = []
    for seed, (length, _, _) in enumerate(counts):
        forward = run(backend, [{"tokens": text(length, seed), "rows": length}], (0, 1, 2))
        everything.append((bits(forward.logits), {layer: bits(states) for layer, states in forward.hidden.items()}))
    segments = [
        {"tokens": text(length, seed), "rows": rows, "scored": scored}
        for seed, (length, rows, scored) in enumerate(counts)
    ]
    forward = run(backend, segments, layers)
    logits = [
        whole[length - (rows if scored is None else scored) :]
        for (whole, _), (length, rows, scored) in zip(everything, counts)
    ]
    assert np.array_equal(bits(forward.logits), np.concatenate(logits))
    assert sorted(forward.hidden) == sorted(layers)
    for layer, states in forward.hidden.items():
        wanted = [whole[layer][length - rows :] for (_, whole), (length, rows, _) in zip(everything, counts)]
        assert np.array_equal(bits(states), np.concatenate(wanted))


@pytest.mark.parametrize("name", EVERY)
def test_a_choice_acts_on_the_scored_row_of_many(name: str) -> None:
    backend, tokens = backend_of(name), text(9)
    choices = (Choice(), Choice(normalized=True, best=3))
    plain = run(backend, [{"tokens": tokens, "rows": 9}], (2,))
    row, hidden = np.asarray(plain.logits)[-1].copy(), bits(plain.hidden[2])
    chosen_row = {"tokens": tokens, "rows": 9, "scored": 1}
    forward = run(backend, [chosen_row | {"choice": choice} for choice in choices], (2,))
    assert forward.logits.shape == (0, VOCABULARY)
    assert np.array_equal(bits(forward.hidden[2]), np.concatenate([hidden, hidden]))
    assert forward.chosen[0] == row.argmax()
    assert list(forward.chosen[1][0]) == list(np.argsort(-row, kind="stable")[:3])
    alone = [run(backend, [{"tokens": tokens, "rows": 1, "choice": choice}]).chosen[0] for choice in choices]
    assert forward.chosen[0] == alone[0]
    assert np.array_equal(bits(forward.chosen[1][1]), bits(alone[1][1]))
    mixed = run(backend, [chosen_row | {"choice": choices[0]}, {"tokens": tokens, "rows": 9, "scored": 2}], (2,))
    assert mixed.chosen == [alone[0], None]
    assert np.array_equal(bits(mixed.logits)[1:], bits(run(backend, [{"tokens": tokens, "rows": 2}]).logits))


@pytest.mark.parametrize("fields", [{"scored": 3}, {"scored": -1}, {"rows": 0, "scored": 1}, {"scored": 2**40}])
@pytest.mark.parametrize("choice", [None, Choice()])
def test_impossible_counts_are_refused(fields: dict[str, Any], choice: Choice | None) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        run(backend_of("llama"), [{"tokens": text(4), "rows": 2, "choice": choice} | fields])


@pytest.mark.parametrize("layer", [-1, 3, 2**70])
def test_layers_that_are_not_there_are_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"no layer {layer} of 0 to 2"):
        run(backend_of("llama"), [{"tokens": text(4), "rows": 2}], (0, layer))


# --- the head alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_heads_rows_are_the_same_bits_in_any_company(precision: str, threads: int) -> None:
    backend = packed(precision)
    states = np.random.default_rng(3).standard_normal((150, WIDTH)).astype(np.float32)
    states[7] = 0
    states[11] *= 1e4
    core().set_threads(threads)
    try:
        alone = np.concatenate([bits(backend.head(state[None])) for state in states])
        for rows in (2, 3, 7, 16, 33, 64, 150):
            assert np.array_equal(bits(backend.head(states[:rows])), alone[:rows]), rows
        assert np.array_equal(bits(backend.head(states[::-3])), alone[::-3])
    finally:
        core().set_threads(0)
    assert backend.head(states[:0]).shape == (0, VOCABULARY)


@pytest.mark.parametrize(
    ("precision", "share"),
    [("float32", 1e-6), ("bfloat16", 0.02), ("float16", 0.005), ("int8", 0.05), ("int4", 0.7)],
)
def test_the_head_is_the_product_with_its_matrix_and_its_bias(precision: str, share: float) -> None:
    backend, weights = packed(precision), Packed(precision)
    states = np.random.default_rng(4).standard_normal((40, WIDTH)).astype(np.float32)
    expected = states.astype(np.float64) @ weights.numbers["head.weight"].T + weights.numbers["head.bias"]
    # In shares of the largest input of a row times the largest weight of one.
    bound = share * np.abs(states).max(1)[:, None] * np.abs(weights.numbers["head.weight"]).max(1) + 1e-5
    assert (np.abs(backend.head(states) - expected) <= bound).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_head_on_the_last_layers_states_gives_the_bits_of_a_run(precision: str) -> None:
    backend = packed(precision)
    forward = run(backend, [{"tokens": text(20), "rows": 20}], (2,))
    logits = bits(forward.logits)
    assert np.array_equal(bits(backend.head(forward.hidden[2])), logits)
    assert np.array_equal(bits(forward.logits), logits)  # which the head leaves alone


def test_heads_are_asked_for_by_several_threads_while_others_run() -> None:
    backend, states = backend_of("llama"), torch.randn(33, WIDTH, generator=torch.Generator().manual_seed(1))
    expected = bits(backend.head(states))
    tokens = text(30)
    hidden = bits(run(backend, [{"tokens": tokens, "rows": 30}], (2,)).hidden[2])

    def ask(number: int) -> bool:
        if number % 2:
            return np.array_equal(bits(backend.head(states)), expected)
        return np.array_equal(bits(run(backend, [{"tokens": tokens, "rows": 30}], (2,)).hidden[2]), hidden)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (2, WIDTH - 1), (WIDTH,), (1, 2, WIDTH), (3, 0), ()], ids=str)
def test_states_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    states = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=rf"not \(rows, {WIDTH}\)"):
        backend_of("llama").head(states)
    with pytest.raises((ValueError, TypeError)):
        backend_of("llama")._made.lowered.plan.score(states)


def test_a_plan_without_a_head_makes_no_logits() -> None:
    with pytest.raises(ValueError, match="no head"):
        core().Plan(VOCABULARY, WIDTH).score(np.zeros((1, WIDTH), np.float32))


# --- truncated plans -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_truncated_plan_runs_the_same_matrices_with_a_store_of_its_own(name: str) -> None:
    backend = backend_of(name)
    shallow = backend.truncated(1)
    assert set(shallow._made.lowered.matrices) < set(backend._made.lowered.matrices)
    sizes = [sum(group.bytes_per_page for group in view.open_store(PAGE).groups) for view in (shallow, backend)]
    assert sizes[1] == 2 * sizes[0]
    store = shallow.open_store(PAGE)
    store.resize(0, 1)
    with pytest.raises(ValueError, match="store"):
        backend.run(store, [Segment(text(1), 0, (np.zeros(1, np.int64),), 1, 60)])
    tokens = text(20)
    whole = run(backend, [{"tokens": tokens, "rows": 20}], (1,))
    kept = bits(whole.hidden[1]), bits(whole.logits)
    short = run(shallow, [{"tokens": tokens, "rows": 20}], (1, 0))
    assert np.array_equal(bits(whole.logits), kept[1])  # another backend's memory
    normed = torch.from_numpy(kept[0].view(np.float32))
    with torch.no_grad():
        normed = tiny(name).base_model.norm(normed)
    torch.testing.assert_close(short.hidden[1], normed, atol=2e-5, rtol=1e-5)
    assert np.array_equal(bits(shallow.head(short.hidden[1])), bits(short.logits))


@pytest.mark.parametrize("depth", [0, 2, 3, -1])
def test_impossible_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth={depth}"):
        backend_of("llama").truncated(depth)


def through_data(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.3)


def trained(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.shape[-1]))


@pytest.mark.parametrize("change", [through_data, trained])
@pytest.mark.parametrize("asked", [0, 1], ids=["the whole is asked first", "the truncated one is asked first"])
@pytest.mark.parametrize("pack", [False, True], ids=["in place", "packed"])
def test_both_follow_changed_weights_whoever_is_asked(change: Callable[[Any], None], asked: int, pack: bool) -> None:
    model = copy.deepcopy(tiny("llama"))
    model.pack_weights = pack
    backend = borrowed(model)
    views = [backend, backend.truncated(1)]
    step = [{"tokens": text(12), "rows": 12}]
    states = torch.ones(2, WIDTH)

    def found() -> list[np.ndarray]:
        return [bits(rows) for view in views for rows in (run(view, step).logits, view.head(states))]

    before = found()
    assert not any(view.weights_changed() for view in views)
    change(model)
    assert views[asked].weights_changed()
    after = found()  # the other one, too
    fresh = borrowed(model)
    views, asked_views = [fresh, fresh.truncated(1)], views
    assert all(np.array_equal(rows, expected) for rows, expected in zip(after, found(), strict=True))
    assert not any(np.array_equal(rows, old) for rows, old in zip(after, before))
    assert asked_views[1 - asked].weights_changed()  # its keys and values are those of the old weights
    assert not any(view.weights_changed() for view in asked_views)
