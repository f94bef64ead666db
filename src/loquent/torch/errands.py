"""What a step fetches of pages that are not where the model is, and how they are numbered there; copies nothing.

Which sequences are attended together, and how many keys are read of each, is what it is where the pages are at hand, so
that results are the same to the bit: only the page numbers are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.torch.groups import Group, Plan, Row
from loquent.torch.keys import Gathered, JoinedKeys, Strided
from loquent.torch.places import Place, fresh_numbers, fresh_pages, slots_of, table_of

Pages = NDArray[np.int64]


class Run(NamedTuple):
    """Pages, or tokens, that follow one another: from `source` on where they are, from `target` on where they go."""

    source: int
    target: int
    length: int


def runs_of(sources: Pages, targets: Pages) -> list[Run]:
    """Pairs of numbers as runs."""
    cuts = np.flatnonzero((np.diff(sources) != 1) | (np.diff(targets) != 1)) + 1
    edges = [0, *cuts.tolist(), len(sources)]
    return [Run(int(sources[low]), int(targets[low]), high - low) for low, high in pairwise(edges) if high > low]


@dataclass(frozen=True, eq=False)
class Errand:
    """What is fetched for the layers of a place, and what is taken back; pages are numbered anew on the device."""

    plan: Plan  # whose keys are on the device
    exact: int  # how many exact pages are there
    coded: int
    fetched: list[Run]  # exact pages of the store, to those on the device
    fetched_coded: list[Run]
    tokens: Tensor | None  # those of the packed tokens that are written on the device, too; None: all
    slots: Tensor  # and where
    fresh: tuple[Tensor, Tensor] | None  # exact pages on the device, and the coded ones there that they become
    returned: list[Run]  # packed tokens, to slots of the store
    returned_coded: list[Run]  # pages on the device, to those of the store


def make_errand(rows: Sequence[Row], place: Place, page_size: int, device: torch.device) -> Errand:
    """The errand of a place in a step over these rows."""
    exact, coded = _Moved(rows, place.exact, page_size), _Moved(rows, place.coded, page_size)
    groups = [_move_keys(group, place, exact, coded) for group in place.plan.groups]
    fresh, returned_coded = None, []
    if place.coded is not None:
        known = fresh_pages(rows, place.exact, place.coded)
        numbers = [fresh_numbers(row, place.coded) for row in rows]
        pairs = [(exact.have(index, some), coded.have(index, some)) for index, some in enumerate(numbers)]
        if known is not None:
            here, become = (np.concatenate(pages) for pages in zip(*pairs))
            fresh = torch.from_numpy(here).to(device), torch.from_numpy(become).to(device)
            returned_coded = runs_of(become, known[1])
    slots = exact.slots()
    some = np.flatnonzero(slots >= 0)
    stored = slots_of(rows, place.exact, page_size)
    return Errand(
        Plan(groups, place.plan.restore),
        exact.count,
        coded.count,
        exact.runs,
        coded.runs,
        None if len(some) == len(slots) else torch.from_numpy(some).to(device),
        torch.from_numpy(slots[some]).to(device),
        fresh,
        runs_of(np.arange(len(stored)), stored),
        returned_coded,
    )


class _Moved:
    """Pages of one group of a store, numbered anew in the order in which they are taken.

    `tables` are those of the rows in the new numbers, -1 where a page is not there.
    """

    def __init__(self, rows: Sequence[Row], group: int | None, page_size: int) -> None:
        self._rows, self._page_size = rows, page_size
        self._tables = [np.zeros(0, np.int64) if group is None else table_of(row, group) for row in rows]
        self.tables: list[Pages] = [np.full(len(table), -1) for table in self._tables]
        self.count = 0
        self.runs: list[Run] = []

    def gather(self, source: Gathered) -> Gathered:
        """Where these slots are then; a page that several sequences share is there once."""
        pages, places = np.unique(source.numbers, return_inverse=True)
        return replace(source, numbers=self._take(pages)[places])

    def move(self, source: Strided | Gathered) -> Strided | Gathered:
        """Where these slots are then: in place if they were, as many, and with the same others between a sequence's."""
        if isinstance(source, Gathered):
            return self.gather(source)
        size, first = self._page_size, source.first // self._page_size
        pages = np.arange(first, -(-(source.first + source.size) // size))
        taken = [self._take(pages + index * source.step // size) for index in range(source.count)]
        return replace(source, first=int(taken[0][0]) * size + source.first % size, step=len(pages) * size)

    def note(self, members: Sequence[int], firsts: Sequence[int], source: Strided | Gathered) -> None:
        """Rows have their pages there, of which the first slot is that of position `firsts[...]`."""
        for index, (row, first) in enumerate(zip(members, firsts)):
            table, start = self.tables[row], first // self._page_size
            pages = _pages(source, index, self._page_size)[: len(table) - start]
            table[start : start + len(pages)] = pages

    def have(self, row: int, numbers: Pages) -> Pages:
        """The new numbers of some of a row's pages; those that are taken for it need not be fetched if all is new."""
        table = self.tables[row]
        lacking = numbers[table[numbers] < 0]
        table[lacking] = self._take(self._tables[row][lacking], fetched=self._rows[row].past > 0)
        here: Pages = table[numbers]
        return here

    def slots(self) -> Pages:
        """The new tokens' slots, (tokens,), -1 where a page is not there."""
        found = []
        for row, table in zip(self._rows, self.tables):
            places = np.arange(row.past, row.past + row.length)
            pages = table[places // self._page_size]
            found.append(np.where(pages < 0, -1, pages * self._page_size + places % self._page_size))
        return np.concatenate(found)

    def _take(self, pages: Pages, fetched: bool = True) -> Pages:
        taken = np.arange(self.count, self.count + len(pages))
        self.count += len(pages)
        if fetched:
            self.runs += runs_of(pages, taken)
        return taken


def _pages(source: Strided | Gathered, index: int, page_size: int) -> Pages:
    """Those that a sequence's slots are in."""
    if isinstance(source, Gathered):
        found: Pages = source.numbers.reshape(source.count, -1)[index]
        return found
    first = source.first + index * source.step
    return np.arange(first // page_size, -(-(first + source.size) // page_size))


def _move_keys(group: Group, place: Place, exact: _Moved, coded: _Moved) -> Group:
    keys = group.keys(place.window)
    near = keys.exact if isinstance(keys, JoinedKeys) else keys
    if near.source is not None:
        near = replace(near, source=exact.move(near.source))
        assert near.source is not None
        exact.note(group.members, near.first, near.source)
    if not isinstance(keys, JoinedKeys):
        return group.with_keys(place.window, near)
    far = coded.gather(keys.coded)
    coded.note(group.members, keys.first, far)
    return group.with_keys(place.window, replace(keys, coded=far, exact=near))
