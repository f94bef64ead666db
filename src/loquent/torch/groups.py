"""Which sequences of a batch are attended in one call, and where their keys are; decided once per step for all layers.

Sequences with equally many new tokens can share a call. Those that start empty take their keys from the projection;
the others read the store: a run of sequences whose pages are consecutive and evenly spaced is read in place, one view
for all of them, and what is scattered is gathered page by page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Measured on two cores: a call of attention of its own costs as much as gathering this many key elements.
_ELEMENTS_PER_CALL_CPU = 8_000
_ELEMENTS_PER_CALL_GPU = 4_000_000


@dataclass(frozen=True, eq=False)
class Row:
    """What one sequence brings to a batch: `length` new tokens after `past` that the store holds.

    `tables` has its page table for each of the store's groups (see `engine.backend.Segment`). Without tables nothing
    is remembered, and `past` must be 0. `span` is the longest that the sequence may become.
    """

    length: int
    past: int
    span: int
    tables: tuple[NDArray[np.int64], ...] = ()


@dataclass(frozen=True, eq=False)
class Strided:
    """Slots of `count` sequences in place: `size` slots each from `first` on, `step` slots from one to the next."""

    first: int
    step: int
    count: int
    size: int

    def read(self, plane: Tensor) -> Tensor:
        """The entries, (count, size, ...), without copying."""
        if self.count == 1:
            return plane[self.first : self.first + self.size].unsqueeze(0)
        strides = plane.stride()
        shape = (self.count, self.size, *plane.shape[1:])
        return plane.as_strided(shape, (self.step * strides[0], *strides), self.first * strides[0])


@dataclass(frozen=True, eq=False)
class Gathered:
    """Slots of `count` sequences by page number, (count * pages of each,), padded with any page."""

    pages: Tensor
    count: int
    page_size: int

    @property
    def size(self) -> int:
        """How many slots of each sequence are read."""
        return len(self.pages) // self.count * self.page_size

    def read(self, plane: Tensor) -> Tensor:
        """The entries, (count, size, ...), in a copy."""
        entries = plane.view(len(plane) // self.page_size, -1).index_select(0, self.pages)
        return entries.view(self.count, self.size, *plane.shape[1:])


@dataclass(frozen=True, eq=False)
class Keys:
    """The keys that a group's queries can see: `size` per sequence, of which the first has the position `first[b]`."""

    group: Group
    source: Strided | Gathered | None  # None: the group's own new tokens
    first: tuple[int, ...]
    size: int
    window: int | None
    _seen: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)
    _bias: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @property
    def causal(self) -> bool:
        """Whether query i sees exactly keys 0 to i, which needs no mask."""
        return self.source is None and (self.window is None or self.group.length <= self.window)

    def visible(self, start: int, stop: int) -> Tensor | None:
        """Which keys new tokens `start` to `stop` of each sequence see, (count or 1, stop - start, size); None: all.

        Where all sequences see the same, there is one row for all of them.
        """
        if (start, stop) not in self._seen:
            seen = None if self._all_seen(start, stop) else self._mask(start, stop)
            if (start, stop) != (0, self.group.length):
                return seen  # a block of many: masks of all of them would be large
            self._seen[start, stop] = seen
        return self._seen[start, stop]

    def bias(self, start: int, stop: int, dtype: torch.dtype) -> Tensor | None:
        """`visible` as numbers to add to the scores, (count or 1, 1, stop - start, size): 0 or minus infinity."""
        visible = self.visible(start, stop)
        if visible is None:
            return None
        if (start, stop) != (0, self.group.length):
            return as_bias(visible, dtype)
        if dtype not in self._bias:
            self._bias[dtype] = as_bias(visible, dtype)
        return self._bias[dtype]

    def _all_seen(self, start: int, stop: int) -> bool:
        if stop - start > 1:
            return False
        return all(
            first + self.size - 1 == past + start and (self.window is None or self.size <= self.window)
            for first, past in zip(self.first, self.group.pasts)
        )

    def _mask(self, start: int, stop: int) -> Tensor:
        pairs = list(zip(self.group.pasts, self.first))
        if len(set(pairs)) == 1:
            pairs = pairs[:1]
        device = self.group.device
        offsets = torch.tensor([past - first for past, first in pairs], device=device).view(-1, 1, 1)
        queries = torch.arange(start, stop, device=device).view(1, -1, 1) + offsets  # relative to the first key
        keys = torch.arange(self.size, device=device)
        seen = keys <= queries
        return seen if self.window is None else seen & (keys > queries - self.window)


def as_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add to scores, with a dimension for heads."""
    zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return zeros.masked_fill_(~visible, float("-inf")).unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Group:
    """Sequences with `length` new tokens each, attended together.

    `rows` are their packed tokens, sequence by sequence. `stored` are their slots in the store, None where they start
    empty. With `joined`, the new tokens' keys come from the projection behind what the store holds, so that gradients
    reach them.
    """

    members: tuple[int, ...]
    rows: slice | Tensor
    length: int
    pasts: tuple[int, ...]
    stored: Strided | _Scattered | None
    joined: bool
    device: torch.device
    _keys: dict[int | None, Keys] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many sequences there are."""
        return len(self.pasts)

    def take(self, packed: Tensor) -> Tensor:
        """The group's part of a packed tensor (tokens, ...) as (count, length, ...)."""
        taken = packed[self.rows] if isinstance(self.rows, slice) else packed.index_select(0, self.rows)
        return taken.view(self.count, self.length, *packed.shape[1:])

    def keys(self, window: int | None) -> Keys:
        """Where the keys for queries with this window are."""
        if window not in self._keys:
            self._keys[window] = self._find_keys(window)
        return self._keys[window]

    def _find_keys(self, window: int | None) -> Keys:
        if self.stored is None:
            return Keys(self, None, (0,) * self.count, self.length, window)
        wanted = None if window is None else window + self.length - 1
        if isinstance(self.stored, _Scattered):
            source, first = self.stored.last(wanted, self.device)
            return Keys(self, source, first, source.size, window)
        # Evenly spaced sequences of different lengths are read as far as the longest; they skip what all of them skip.
        skipped = 0 if wanted is None else max(0, min(self.pasts) + self.length - wanted)
        place = self.stored
        size = place.size - skipped
        rest = Strided(place.first + skipped, place.step, place.count, size)
        return Keys(self, rest, (skipped,) * self.count, size, window)


@dataclass(frozen=True, eq=False)
class _Scattered:
    """Sequences whose pages are anywhere: a page table and a length for each."""

    tables: tuple[NDArray[np.int64], ...]
    totals: tuple[int, ...]
    page_size: int

    def last(self, wanted: int | None, device: torch.device) -> tuple[Gathered, tuple[int, ...]]:
        """The pages that hold the last `wanted` slots of each sequence, and the position of the first slot read."""
        stops = [-(-total // self.page_size) for total in self.totals]
        starts = [0 if wanted is None else max(0, total - wanted) // self.page_size for total in self.totals]
        width = max(stop - start for start, stop in zip(starts, stops))
        pages = np.zeros((len(stops), width), np.int64)
        for row, (table, start, stop) in enumerate(zip(self.tables, starts, stops)):
            pages[row, : stop - start] = table[start:stop]
            pages[row, stop - start :] = table[stop - 1]
        found = Gathered(torch.from_numpy(pages.ravel()).to(device), len(stops), self.page_size)
        return found, tuple(start * self.page_size for start in starts)


@dataclass(frozen=True, eq=False)
class Plan:
    """The groups of a batch, and the order that brings their tokens, group after group, back into packed order."""

    groups: list[Group]
    restore: Tensor | None  # None: they are in order


@dataclass(frozen=True)
class Pages:
    """What planning knows of the pages that some layers read: which of a row's tables, and what is behind it.

    `slots` is the store's size, `entry_size` how many numbers a token's keys have in a layer: it decides between
    gathering and calls of their own.
    """

    table: int
    page_size: int
    slots: int
    entry_size: int
    window: int | None

    def first(self, row: Row) -> int:
        """The first page that the row's new tokens see; those before it may be nobody's, or another's."""
        return 0 if self.window is None else max(0, row.past + 1 - self.window) // self.page_size


def plan_groups(rows: Sequence[Row], pages: Pages | None, device: torch.device, *, joined: bool) -> Plan:
    """Sort the rows of a batch into groups, for layers that read the same pages; None: no row has a past.

    With `joined`, gradients flow through the new tokens' keys.
    """
    starts = np.cumsum([0, *(row.length for row in rows)])
    alike: dict[tuple[bool, int], list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault((row.past > 0, row.length), []).append(index)
    groups = []
    for (is_stored, length), members in alike.items():
        if not is_stored or pages is None:
            chosen: list[tuple[list[int], Strided | _Scattered | None]] = [(members, None)]
        else:
            chosen = list(_place(rows, members, pages, device, alone=joined))
        for some, place in chosen:
            packed = _packed_rows(starts, some, length, device)
            pasts = tuple(rows[index].past for index in some)
            groups.append(Group(tuple(some), packed, length, pasts, place, joined and is_stored, device))
    order = [index for group in groups for index in group.members]
    if order == list(range(len(rows))):
        return Plan(groups, None)
    gathered = np.concatenate([np.arange(starts[index], starts[index + 1]) for index in order])
    return Plan(groups, torch.from_numpy(np.argsort(gathered)).to(device))


def _packed_rows(starts: NDArray[np.int64], members: list[int], length: int, device: torch.device) -> slice | Tensor:
    first = int(starts[members[0]])
    if members == list(range(members[0], members[0] + len(members))):
        return slice(first, first + length * len(members))
    return torch.from_numpy(np.concatenate([np.arange(starts[m], starts[m] + length) for m in members])).to(device)


def _place(
    rows: Sequence[Row], members: list[int], pages: Pages, device: torch.device, *, alone: bool
) -> Iterator[tuple[list[int], Strided | _Scattered]]:
    """Split rows with equally many new tokens into those read in place and those gathered."""
    tables = {index: rows[index].tables[pages.table] for index in members}
    totals = {index: rows[index].past + rows[index].length for index in members}
    skipped = {index: pages.first(rows[index]) for index in members}
    firsts, single, scattered = {}, [], []
    for index, table in tables.items():
        live = skipped[index]
        if _is_run(table):
            firsts[index] = int(table[0]) * pages.page_size
        elif live and _is_run(table[live:]):
            # Where position 0 would be. What is there is not its own, so that it is not read beside another row.
            firsts[index] = (int(table[live]) - live) * pages.page_size
            single.append(index)
        else:
            scattered.append(index)
    single = list(firsts) if alone else single
    together = {index: first for index, first in firsts.items() if index not in single}
    runs = [*([index] for index in single), *_even_runs(together, totals, pages.slots)]
    per_call = _ELEMENTS_PER_CALL_CPU if device.type == "cpu" else _ELEMENTS_PER_CALL_GPU
    in_place = sum(totals[index] - skipped[index] * pages.page_size for index in firsts) * pages.entry_size
    if len(runs) > 1 and not alone and in_place < per_call * len(runs):
        scattered, runs = members, []
    for run in runs:
        step = firsts[run[1]] - firsts[run[0]] if len(run) > 1 else 0
        yield run, Strided(firsts[run[0]], step, len(run), max(totals[index] for index in run))
    for some in [[index] for index in scattered] if alone else [scattered] if scattered else []:
        yield some, _Scattered(tuple(tables[i] for i in some), tuple(totals[i] for i in some), pages.page_size)


def _is_run(table: NDArray[np.int64]) -> bool:
    return bool(table[0] >= 0 and (table[1:] - table[:-1] == 1).all())


def _even_runs(firsts: dict[int, int], totals: dict[int, int], slots: int) -> Iterator[list[int]]:
    """Sequences in order of their slots, cut where the distance changes or reading the longest of all is a waste."""
    run: list[int] = []
    step = longest = needed = 0
    for index in sorted(firsts, key=firsts.__getitem__):
        distance = firsts[index] - firsts[run[-1]] if run else 0
        reach, sum_needed = max(longest, totals[index]), needed + totals[index]
        even = distance > 0 and (len(run) == 1 or distance == step)
        if even and 2 * sum_needed >= reach * (len(run) + 1) and firsts[index] + reach <= slots:
            run.append(index)
            step, longest, needed = distance, reach, sum_needed
            continue
        if run:
            yield run
        run, longest, needed = [index], totals[index], totals[index]
    if run:
        yield run
