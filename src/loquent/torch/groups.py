"""Sequences of a batch that are attended in one call, and where in the store they are; `planning` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.torch.keys import Gathered, JoinedKeys, Keys, PackedKeys, Queries, Strided


@dataclass(frozen=True, eq=False)
class Row:
    """What one sequence brings to a batch: `length` new tokens after `past` that the store holds.

    `tables` has its page table for each of the store's groups, and `coded` how many of their pages have been coded (see
    `engine.backend.Segment`). Without tables nothing is remembered, and `past` must be 0. `span` is the longest that
    the sequence may become.
    """

    length: int
    past: int
    span: int
    tables: tuple[NDArray[np.int64], ...] = ()
    coded: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Scattered:
    """Sequences whose pages are anywhere: a page table and a length for each."""

    tables: tuple[NDArray[np.int64], ...]
    totals: tuple[int, ...]
    page_size: int

    def last(self, wanted: int | None, device: torch.device) -> tuple[Gathered, tuple[int, ...]]:
        """The pages that hold the last `wanted` slots of each sequence, and the position of the first slot read."""
        starts = [0 if wanted is None else max(0, total - wanted) // self.page_size for total in self.totals]
        return self.behind(starts, device), tuple(start * self.page_size for start in starts)

    def behind(self, starts: Sequence[int], device: torch.device) -> Gathered:
        """The pages of each sequence from number `starts[b]` on."""
        stops = [-(-total // self.page_size) for total in self.totals]
        return gather(self.tables, list(zip(starts, stops)), self.page_size, device)


def gather(
    tables: Sequence[NDArray[np.int64]], spans: Sequence[tuple[int, int]], page_size: int, device: torch.device
) -> Gathered:
    """Pages `spans[b]` of each table, the shorter ones padded with their last."""
    width = max(stop - start for start, stop in spans)
    pages = np.zeros((len(spans), width), np.int64)
    for row, (table, (start, stop)) in enumerate(zip(tables, spans)):
        pages[row, : stop - start] = table[start:stop]
        pages[row, stop - start :] = table[stop - 1]
    return Gathered(pages.ravel(), len(spans), page_size, device)


@dataclass(frozen=True, eq=False)
class Coded:
    """What sequences see of coded pages, and their pages of what they see exactly; the first position of each."""

    coded: Gathered
    coded_first: tuple[int, ...]
    exact: Gathered | None  # None: nothing but the new tokens
    exact_first: tuple[int, ...]
    residual: int


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences with equally many new tokens, attended together.

    `rows` are their packed tokens, sequence by sequence. `stored` are their slots in the store, None where they start
    empty. With `joined`, the new tokens' keys come from the projection behind what the store holds, so that gradients
    reach them. `documents` (members, tokens) is given where each holds several documents that do not see each other.
    """

    members: tuple[int, ...]
    rows: slice | Tensor
    queries: Queries
    stored: Strided | Scattered | Coded | None
    joined: bool
    documents: Tensor | None = None
    _keys: dict[int | None, Keys | JoinedKeys] = field(default_factory=dict)

    def take(self, packed: Tensor) -> Tensor:
        """The group's part of a packed tensor (tokens, ...) as (count, new, ...)."""
        taken = packed[self.rows] if isinstance(self.rows, slice) else packed.index_select(0, self.rows)
        return taken.view(len(self.members), self.queries.length, *packed.shape[1:])

    def keys(self, window: int | None) -> Keys | JoinedKeys:
        """Where the keys for queries with this window are."""
        if window not in self._keys:
            self._keys[window] = self._find_keys(window)
        return self._keys[window]

    def with_keys(self, window: int | None, keys: Keys | JoinedKeys) -> Group:
        """The same group, whose keys for this window are elsewhere."""
        return replace(self, _keys={window: keys})

    def _find_keys(self, window: int | None) -> Keys | JoinedKeys:
        queries, place = self.queries, self.stored
        if self.documents is not None:
            size, first = queries.length, (0,) * len(self.members)
            return PackedKeys(queries, None, first, size, window, self.joined, documents=self.documents)
        if place is None:
            return Keys(queries, None, (0,) * len(self.members), queries.length, window, self.joined)
        if isinstance(place, Coded):
            size = queries.length if place.exact is None else self._size(place.exact, place.exact_first)
            exact = Keys(queries, place.exact, place.exact_first, size, window, self.joined)
            return JoinedKeys(place.coded, place.coded_first, exact, window, place.residual)
        wanted = None if window is None else window + queries.length - 1
        if isinstance(place, Scattered):
            source, first = place.last(wanted, queries.device)
            return Keys(queries, source, first, self._size(source, first), window, self.joined)
        # Evenly spaced sequences of different lengths are read as far as the longest; they skip what all of them skip.
        skipped = 0 if wanted is None else max(0, min(queries.pasts) + queries.length - wanted)
        size = place.size - skipped
        rest = Strided(place.first + skipped, place.step, place.count, size)
        return Keys(queries, rest, (skipped,) * place.count, size, window, self.joined)

    def _size(self, source: Gathered, first: Sequence[int]) -> int:
        """How many keys are read of each sequence's pages; with `joined`, no more than the only sequence has."""
        return self.queries.pasts[0] + self.queries.length - first[0] if self.joined else source.size


@dataclass(frozen=True, eq=False)
class Plan:
    """The groups of a batch, and the order that brings their tokens, group after group, back into packed order."""

    groups: list[Group]
    restore: Tensor | None  # None: they are in order
