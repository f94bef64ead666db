"""Which sequences of a batch are attended in one call; decided once per step for all layers that read the same pages.

Sequences with equally many new tokens can share a call. Those that start empty take their keys from the projection;
the others read the store: a run of sequences whose pages are consecutive and evenly spaced is read in place, one view
for all of them, and what is scattered is gathered page by page. Those that see coded pages are read by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache import PageGroup
from loquent.torch.groups import Coded, Group, Plan, Row, Scattered, gather
from loquent.torch.keys import Queries, Strided

# Measured on two cores: a call of attention of its own costs as much as gathering this many key elements.
_ELEMENTS_PER_CALL_CPU = 8_000
_ELEMENTS_PER_CALL_GPU = 4_000_000
# Of coded pages not more key elements are decoded at once, unless a single sequence has more.
_DECODED_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Tables:
    """What planning knows of the pages that some layers read: which of a row's tables, and what is behind it.

    `slots` is the store's size, `entry_size` how many numbers a token's keys have in a layer: it decides between
    gathering and calls of their own. `coded` are the table and the group of the coded pages, if these layers have some.
    """

    table: int
    group: PageGroup
    page_size: int
    slots: int
    entry_size: int
    coded: tuple[int, PageGroup] | None = None

    def first(self, row: Row) -> int:
        """The first page that the row's new tokens see exactly; those before it may be nobody's, or another's."""
        return self.group.first(row.past, self.page_size)

    def coded_span(self, row: Row) -> tuple[int, int]:
        """From which page to which, not included, some of the row's new tokens see them coded."""
        if self.coded is None:
            return 0, 0
        stop = self.coded[1].stop(row.past + row.length, self.page_size)
        return min(stop, self.coded[1].first(row.past, self.page_size)), stop


def plan_groups(rows: Sequence[Row], tables: Tables | None, device: torch.device, *, joined: bool) -> Plan:
    """Sort the rows of a batch into groups, for layers that read the same pages; None: no row has a past.

    With `joined`, gradients flow through the new tokens' keys.
    """
    starts = np.cumsum([0, *(row.length for row in rows)])
    alike: dict[tuple[bool, bool, int], list[int]] = {}
    for index, row in enumerate(rows):
        low, high = (0, 0) if tables is None else tables.coded_span(row)
        alike.setdefault((low < high, row.past > 0, row.length), []).append(index)
    groups = []
    for (is_coded, is_stored, length), members in alike.items():
        places: Iterator[tuple[list[int], Strided | Scattered | Coded | None]]
        if tables is not None and is_coded:
            places = _place_coded(rows, members, tables, device, alone=joined)
        elif tables is not None and is_stored:
            places = _place(rows, members, tables, device, alone=joined)
        else:
            places = iter([(members, None)])
        for some, place in places:
            packed = _packed_rows(starts, some, length, device)
            queries = Queries(tuple(rows[index].past for index in some), length, device)
            groups.append(Group(tuple(some), packed, queries, place, joined and is_stored))
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
    rows: Sequence[Row], members: list[int], tables: Tables, device: torch.device, *, alone: bool
) -> Iterator[tuple[list[int], Strided | Scattered]]:
    """Split rows with equally many new tokens into those read in place and those gathered."""
    page_size = tables.page_size
    pages = {index: rows[index].tables[tables.table] for index in members}
    totals = {index: rows[index].past + rows[index].length for index in members}
    skipped = {index: tables.first(rows[index]) for index in members}
    firsts, single, scattered = {}, [], []
    for index, table in pages.items():
        live = skipped[index]
        if _is_run(table):
            firsts[index] = int(table[0]) * page_size
        elif live and _is_run(table[live:]):
            # Where position 0 would be. What is there is not its own, so that it is not read beside another row.
            firsts[index] = (int(table[live]) - live) * page_size
            single.append(index)
        else:
            scattered.append(index)
    single = list(firsts) if alone else single
    together = {index: first for index, first in firsts.items() if index not in single}
    runs = [*([index] for index in single), *_even_runs(together, totals, tables.slots)]
    per_call = _ELEMENTS_PER_CALL_CPU if device.type == "cpu" else _ELEMENTS_PER_CALL_GPU
    in_place = sum(totals[index] - skipped[index] * page_size for index in firsts) * tables.entry_size
    if len(runs) > 1 and not alone and in_place < per_call * len(runs):
        scattered, runs = members, []
    for run in runs:
        step = firsts[run[1]] - firsts[run[0]] if len(run) > 1 else 0
        yield run, Strided(firsts[run[0]], step, len(run), max(totals[index] for index in run))
    for some in [[index] for index in scattered] if alone else [scattered] if scattered else []:
        yield some, Scattered(tuple(pages[i] for i in some), tuple(totals[i] for i in some), page_size)


def _place_coded(
    rows: Sequence[Row], members: list[int], tables: Tables, device: torch.device, *, alone: bool
) -> Iterator[tuple[list[int], Coded]]:
    """Split rows with equally many new tokens, all of them with a past or none, that see coded pages."""
    assert tables.coded is not None
    (number, group), page_size = tables.coded, tables.page_size
    spans = {index: tables.coded_span(rows[index]) for index in members}
    sizes = {index: stop - start for index, (start, stop) in spans.items()}
    most = 1 if alone else _DECODED_ELEMENTS // (page_size * tables.entry_size)
    for some in _similar_runs(sizes, most):
        coded = gather([rows[i].tables[number] for i in some], [spans[i] for i in some], page_size, device)
        coded_first = tuple(spans[i][0] * page_size for i in some)
        exact, starts = None, [tables.first(rows[i]) for i in some]
        if rows[some[0]].past:
            totals = tuple(rows[i].past + rows[i].length for i in some)
            exact = Scattered(tuple(rows[i].tables[tables.table] for i in some), totals, page_size)
        yield (
            some,
            Coded(
                coded,
                coded_first,
                None if exact is None else exact.behind(starts, device),
                tuple(start * page_size for start in starts),
                group.residual or 0,
            ),
        )


def _similar_runs(sizes: dict[int, int], most: int) -> Iterator[list[int]]:
    """Sequences in order of their size, cut where all would have more than `most` or padding them is a waste."""
    run: list[int] = []
    for index in sorted(sizes, key=sizes.__getitem__):
        padded = sizes[index] * (len(run) + 1)
        if run and (padded > most or padded > 2 * (sum(sizes[i] for i in run) + sizes[index])):
            yield run
            run = []
        run.append(index)
    yield run


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
