"""Packed rows: every counted token is predicted exactly once, behind its own piece and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.errors import ArgumentError
from loquent.training.data import IGNORED, Collector, Examples, Packs
from loquent.training.data.pieces import cut
from loquent.training.data.placement import best_fit_decreasing

BREAK = 7
BREAKS = np.arange(1 << 16) % 10 == BREAK


def examples_of(lengths: list[int], uncounted: list[bool] | None = None, vocabulary: int = 1 << 16) -> Examples:
    """Documents in which no two tokens are the same."""
    collector = Collector(vocabulary)
    marks = np.array(uncounted or [False])
    first = 0
    for length in lengths:
        places = np.arange(first, first + length)
        collector.add(places, ~marks[places % len(marks)])
        first += length
    return collector.examples()


@st.composite
def settings(draw: st.DrawFn) -> tuple[Examples, int, dict[str, Any]]:
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=12))
    marks = draw(st.lists(st.booleans(), min_size=1, max_size=9))
    examples = examples_of(lengths, marks)
    options = {
        "breaks": draw(st.sampled_from([None, BREAKS])),
        "packing": draw(st.booleans()),
        "padding_id": draw(st.integers(0, 3)),
    }
    return examples, draw(st.integers(2, 40)), options


def document_of(examples: Examples, token: int) -> int:
    return int(np.searchsorted(examples.starts, token, side="right")) - 1


@given(settings())
def test_every_counted_token_is_predicted_once_behind_what_precedes_it(
    setting: tuple[Examples, int, dict[str, Any]],
) -> None:
    examples, length, options = setting
    if not examples.counted_tokens:
        with pytest.raises(ArgumentError, match="The loss counts no token of the"):
            Packs(examples, length, **options)
        return
    packs = Packs(examples, length, **options)
    batch = packs.batch(list(range(len(packs))))
    seen = []
    for row in range(len(packs)):
        segments = batch.segments[row]
        assert np.all(np.diff(segments) >= 0)
        assert segments[0] == 0
        for segment in range(int(segments[-1]) + 1):
            places = np.flatnonzero(segments == segment)
            ids, targets = batch.ids[row, places], batch.targets[row, places]
            assert batch.positions[row, places].tolist() == list(range(len(places)))
            if np.all(targets == IGNORED):
                # The padding is a segment of its own, the last; a piece without a target is left out.
                assert segment == segments[-1]
                assert set(ids) == {options["padding_id"]}
                continue
            # Ids count tokens, so a piece is a run of them within one document.
            assert ids.tolist() == list(range(ids[0], ids[0] + len(ids)))
            assert document_of(examples, ids[0]) == document_of(examples, ids[-1])
            predicted = targets != IGNORED
            assert np.all(targets[predicted] == ids[predicted] + 1)
            assert targets[-1] == IGNORED
            seen += targets[predicted].tolist()
    assert sorted(seen) == np.flatnonzero(examples.counted).tolist()
    assert batch.counted == len(seen) == packs.counted.sum()


@given(settings())
def test_a_batch_is_its_rows_in_any_order(setting: tuple[Examples, int, dict[str, Any]]) -> None:
    examples, length, options = setting
    if not examples.counted_tokens:
        return
    packs = Packs(examples, length, **options)
    order = np.random.default_rng(len(packs)).integers(0, len(packs), 5)
    batch = packs.batch(order)
    for row, pack in enumerate(order):
        alone = packs.batch([int(pack)])
        for name in ("ids", "targets", "positions", "segments"):
            assert getattr(batch, name)[row].tolist() == getattr(alone, name)[0].tolist()
        assert alone.counted == packs.counted[pack]


@given(settings())
def test_pieces_are_what_cutting_one_document_after_another_gives(
    setting: tuple[Examples, int, dict[str, Any]],
) -> None:
    examples, length, options = setting
    expected = []
    for begin, limit in zip(examples.starts[:-1].tolist(), examples.starts[1:].tolist()):
        while True:
            stop = min(begin + length, limit)
            if stop < limit and options["breaks"] is not None:
                least = max(begin + length * 3 // 4, begin + 1)
                at_break = [place for place in range(least, stop) if place % 10 == BREAK]
                stop = at_break[-1] + 1 if at_break else stop
            if examples.counted[begin + 1 : stop].any():
                expected.append((begin, stop, int(examples.counted[begin + 1 : stop].sum())))
            if stop == limit:
                break
            begin = stop - 1
    if expected:
        pieces = cut(examples, length, options["breaks"])
        assert list(zip(pieces.starts.tolist(), pieces.stops.tolist(), pieces.counted.tolist())) == expected


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 40))
def test_bins_are_those_of_best_fit_decreasing(lengths: list[int], room: int) -> None:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [left for left in rooms if left >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(room - length)
    bins = best_fit_decreasing(np.array(lengths, np.int64), room)
    filled = np.bincount(bins, lengths) if lengths else np.zeros(0)
    assert sorted(room - filled) == sorted(rooms)


def test_cutting_at_breaks_and_truncating() -> None:
    packs = Packs(examples_of([50]), 16, breaks=BREAKS, packing=False)
    # The last quarter of the first piece is 12 to 15, without a break; of the second 27 to 30.
    assert packs.batch([0, 1]).ids[:, 0].tolist() == [0, 15]
    assert packs.pieces.stops.tolist() == [16, 28, 43, 50]
    assert Packs(examples_of([50, 3]), 16, truncate=True).pieces.stops.tolist() == [16, 53]


def test_padding_is_little_and_known() -> None:
    lengths = np.random.default_rng(1).integers(2, 129, 2000).tolist()
    packs = Packs(examples_of(lengths, vocabulary=1 << 20), 128)
    batch = packs.batch(list(range(len(packs))))
    used = batch.segments < batch.segments[:, -1:]
    used |= batch.targets != IGNORED
    assert packs.padding == pytest.approx(1 - sum(lengths) / batch.ids.size)
    assert packs.padding < 0.02


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ArgumentError, match="length=1 must be at least 2 tokens"):
        Packs(examples_of([3]), 1)
    with pytest.raises(ArgumentError, match="padding_id=-1 is no token id"):
        Packs(examples_of([3]), 8, padding_id=-1)
    with pytest.raises(ArgumentError, match="breaks has 2 entries, and the documents have the id 2"):
        Packs(examples_of([3]), 8, breaks=np.zeros(2, np.bool_))
    with pytest.raises(ArgumentError, match="The loss counts no token of the 2 documents"):
        Packs(examples_of([1, 1]), 8)
    with pytest.raises(IndexError, match="packs go from 0 to 0"):
        Packs(examples_of([3]), 8).batch([1])


def test_the_fingerprint_knows_the_cut_and_the_placement() -> None:
    examples = examples_of([9, 5, 30])
    given = [
        Packs(examples, 16),
        Packs(examples, 17),
        Packs(examples, 16, packing=False),
        Packs(examples, 16, truncate=True),
        Packs(examples, 16, padding_id=1),
        Packs(examples_of([9, 6, 29]), 16),
    ]
    assert len({packs.fingerprint() for packs in given}) == len(given)
    assert Packs(examples_of([9, 5, 30]), 16).fingerprint() == given[0].fingerprint()
