"""A step's rows are the same bits alone, in any batch, in any pieces, on any number of threads; bad ones fail."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.engine.backend import Segment
from loquent.errors import ArgumentError, NativeError
from loquent.native import core, why_unavailable
from native.reading import Reader, bits
from properties.models import EVERY, POSITIONS, VOCABULARY, tiny

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

PAGE = 4
PAGES = POSITIONS // PAGE
KINDS = ("float32", "bfloat16", "int8")


@cache
def backend_of(name: str, key_values: str | None = None) -> Any:
    from loquent.native.backend import NativeBackend
    from loquent.native.lent import LentWeights

    loan = tiny(name).lend_weights()
    return NativeBackend(loan.decoder, LentWeights(loan), key_values=key_values)


def alone(backend: Any, tokens: np.ndarray) -> np.ndarray:
    return Reader(backend, 1).read({0: tokens})[0]


@pytest.fixture(params=[1, 2, 3], ids=["one thread", "two threads", "three threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    core().set_threads(request.param)
    yield request.param
    core().set_threads(0)


@cache
def texts() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, VOCABULARY, length) for length in random.integers(2, 40, 64)]


@cache
def expected(name: str, key_values: str | None) -> list[np.ndarray]:
    """The rows of each text read alone, on one thread."""
    core().set_threads(1)
    return [alone(backend_of(name, key_values), text) for text in texts()]


@pytest.mark.parametrize("key_values", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_batches_of_2_to_64_on_any_number_of_threads(name: str, key_values: str, threads: int) -> None:
    rows = expected(name, key_values)
    core().set_threads(threads)
    for size in (2, 3, 7, 16, 33, 64):
        reader = Reader(backend_of(name, key_values), size)
        first = reader.read({number: texts()[number][:-1] for number in range(size)})
        last = reader.read({number: texts()[number][-1:] for number in reversed(range(size))})
        for number in range(size):
            assert np.array_equal(np.concatenate([first[number], last[number]]), rows[number]), (size, number)


@pytest.mark.parametrize("key_values", ["float32", "int8"])
@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=4),
    turns=st.lists(st.integers(1, 15), max_size=8),
)
def test_any_pieces_in_any_company(name: str, key_values: str, seed: int, cuts: Any, turns: list[int]) -> None:
    backend, random = backend_of(name, key_values), np.random.default_rng(seed)
    sequences = [random.integers(0, VOCABULARY, min(sum(sizes), 60)) for sizes in cuts]
    reader, found = Reader(backend, len(cuts), seed), [[] for _ in cuts]
    left = [np.split(text, np.cumsum(sizes)[:-1].clip(max=len(text))) for text, sizes in zip(sequences, cuts)]
    left = [[piece for piece in pieces if len(piece)] for pieces in left]
    for turn in [*turns, *[15] * 12]:
        chosen = {n: left[n].pop(0) for n in range(len(left)) if turn >> n & 1 and left[n]}
        for number, rows in reader.read(chosen).items() if chosen else ():
            found[number].append(rows)
    for text, rows in zip(sequences, found):
        assert np.array_equal(np.concatenate(rows), alone(backend, text))


def test_rotary_tables_are_those_of_each_spans_own_frequencies() -> None:
    backend = backend_of("llama-dynamic")
    text, readers = texts()[0], {span: Reader(backend, 1) for span in (40, 60, 90)}
    rows = {span: reader.read({0: text}, span)[0] for span, reader in readers.items()}
    assert not np.array_equal(rows[40], rows[60])
    store = backend.open_store(PAGE)
    store.resize(0, 3 * PAGES)
    pages = np.arange(3 * PAGES).reshape(3, -1)
    segments = [Segment(text, 0, (table,), len(text), span) for table, span in zip(pages, rows)]
    together = bits(backend.run(store, segments).logits).reshape(3, len(text), -1)
    assert np.array_equal(together, np.stack(list(rows.values())))
    for span in range(17, 400):  # many more tables than a plan keeps
        Reader(backend, 1).read({0: text[:1]}, span)
    assert len(backend._made.tables._tables) < 100
    assert np.array_equal(Reader(backend, 1).read({0: text}, 60)[0], rows[60])


def test_only_wanted_rows_and_layers_come_back() -> None:
    backend, text = backend_of("gpt2"), texts()[0]
    reader = Reader(backend, 1)
    pages = (reader.tables[0][0],)
    everything = backend.run(reader.store, [Segment(text, 0, pages, len(text), 60)], (0, 1, 2))
    logits, hidden = bits(everything.logits), {layer: bits(rows) for layer, rows in everything.hidden.items()}
    some = backend.run(reader.store, [Segment(text, 0, pages, 2, 60)], (2, 0))
    assert np.array_equal(bits(some.logits), logits[-2:])
    assert sorted(some.hidden) == [0, 2]
    for layer, rows in some.hidden.items():
        assert np.array_equal(bits(rows), hidden[layer][-2:])
    none = backend.run(reader.store, [Segment(text, 0, pages, 0, 60)])
    assert none.logits.shape == (0, VOCABULARY)
    assert not none.hidden


@pytest.mark.parametrize("name", ["gpt2", "doge"])
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"tokens": np.array([1, VOCABULARY])}, IndexError),
        ({"tokens": np.array([-1, 1])}, IndexError),
        ({"tokens": np.array([2**40, 1])}, IndexError),
        ({"tokens": np.zeros(0, np.int64)}, ValueError),
        ({"tables": (np.array([0, PAGES]),)}, IndexError),
        ({"tables": (np.array([-1, 1]),)}, IndexError),
        ({"tables": (np.array([0]),)}, IndexError),
        ({"tables": (np.array([2**40, 1]),)}, IndexError),
        ({"tables": ()}, ValueError),
        ({"tables": (np.array([0, 1]),) * 2}, ValueError),
        ({"tables": [np.array([0, 1])]}, ValueError),
        ({"tables": None}, ValueError),
        ({"tables": (None,)}, (TypeError, ValueError, RuntimeError)),
        ({"tables": (np.zeros((2, 2), np.int64),)}, (TypeError, ValueError, RuntimeError)),
        ({"start": -1}, (IndexError, ValueError)),
        ({"start": 2**40}, (IndexError, ValueError)),
        ({"start": 2**62, "tables": (np.zeros(3, np.int64),)}, (IndexError, ValueError)),
        ({"rows": 3}, ValueError),
        ({"rows": -1}, ValueError),
    ],
)
def test_hostile_segments_are_refused_before_anything_is_written(name: str, fields: dict[str, Any], error: Any) -> None:
    backend, text = backend_of(name), np.array([3, 4, 5, 6])
    reader = Reader(backend, 1)
    reader.tables[0][0] = np.arange(PAGES)
    reader.read({0: text})
    bad = {"tokens": np.array([1, 2]), "start": 3, "tables": (np.array([0, 1]),), "rows": 1, "span": 60} | fields
    good = Segment(np.array([8]), 3, (np.array([0]),), 1, 60)  # writes where the text's last token is
    with pytest.raises(error):
        backend.run(reader.store, [good, Segment(**bad)])
    assert np.array_equal(reader.read({0: np.array([7])})[0], alone(backend, np.append(text, 7))[-1:])


def test_stores_and_steps_that_do_not_fit_are_refused() -> None:
    backend = backend_of("gpt2")
    store = backend.open_store(PAGE)
    store.resize(0, 2)
    segment = Segment(np.array([1]), 0, (np.array([0]),), 1, 60)
    with pytest.raises(ValueError, match="store"):
        backend_of("llama").run(store, [segment])
    with pytest.raises(ValueError, match="store"):
        backend_of("doge").run(store, [segment])
    with pytest.raises((TypeError, ValueError)):
        backend.run(object(), [segment])
    with pytest.raises(ValueError, match="segment"):
        backend.run(store, [])
    with pytest.raises((IndexError, ValueError)):
        backend.run(store, [segment], (7,))
    store.resize(0, PAGES + 1)
    with pytest.raises(IndexError, match="position"):
        backend.run(store, [Segment(np.array([1]), POSITIONS, (np.arange(PAGES + 1),), 1, POSITIONS + 1)])
    with pytest.raises(ArgumentError, match="key_values='float64'"):
        backend_of("gpt2", "float64")


def test_pages_are_copied_cleared_and_kept() -> None:
    backend, text = backend_of("doge"), texts()[0][:6]
    reader = Reader(backend, 1)
    reader.tables[0][0] = np.arange(PAGES)
    reader.read({0: text})
    reader.store.copy(0, [1], [5])
    reader.store.resize(0, 2 * PAGES)
    forked = np.array([0, 5])
    segments = [
        Segment(np.array([token]), 6, (pages,), 1, 60) for token, pages in ((9, np.array([0, 1])), (20, forked))
    ]
    rows = bits(backend.run(reader.store, segments).logits)
    for row, token in zip(rows, (9, 20)):
        assert np.array_equal(row, alone(backend, np.append(text, token))[-1])
    reader.store.clear(0, [0, 1])
    cleared = bits(backend.run(reader.store, segments).logits)
    assert not np.array_equal(cleared[0], rows[0])
    sizes = [backend_of("doge", kind).open_store(16).groups[0].bytes_per_page for kind in KINDS]
    least = 16 * 2 * 2  # slots, layers, heads
    assert all(
        least * (2 * 4 * size + 4) <= found <= 3 * least * (2 * 4 * size + 12) for size, found in zip((4, 2, 1), sizes)
    )
    assert sizes[0] > sizes[1]


def test_flattened_routing_is_refused() -> None:
    from dataclasses import replace

    from loquent.native.lowering import lower

    decoder = tiny("doge-experts").decoder
    block = replace(decoder.blocks[0], mlp=replace(decoder.blocks[0].mlp, routing="flattened"))
    with pytest.raises(NativeError, match=r"flattened.*pip install"):
        lower(replace(decoder, blocks=(block,)), None)


def test_the_profile_counts_operations() -> None:
    backend, text = backend_of("llama"), texts()[0]
    backend.profile()
    alone(backend, text)
    profile = backend.profile()
    assert sum(calls for name, calls, _ in profile if name == "attention") == backend.layers
    assert all(seconds > 0 for _, _, seconds in profile)
