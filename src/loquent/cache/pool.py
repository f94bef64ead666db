"""The page pool: how many holders each page has, and which page to hand out next; it never touches page content."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.cache.budget import Budget
from loquent.errors import CapacityError


@dataclass(frozen=True)
class Extent:
    """A run of page numbers set aside for one sequence, so that its pages are consecutive and need no gathering."""

    start: int
    stop: int


class PagePool:
    """Pages by number. A page is *held* (by sequences), *remembered* (free, its content kept for reuse), or *free*.

    `capacity` grows as pages are needed, within a budget; the store behind it is resized by whoever runs the model.
    Extents are a preference: a page set aside is still handed out when nothing else is left.
    """

    def __init__(self, page_size: int, bytes_per_page: int = 1, budget: Budget | None = None) -> None:
        self.page_size, self.bytes_per_page = page_size, bytes_per_page
        self.budget = Budget() if budget is None else budget
        self._holders: NDArray[np.int32] = np.zeros(0, np.int32)
        self._aside: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._remembered: OrderedDict[int, Callable[[int], None]] = OrderedDict()  # page -> what to tell when it goes

    @property
    def capacity(self) -> int:
        """How many pages the store must have."""
        return len(self._holders)

    @property
    def held(self) -> int:
        """How many pages at least one sequence holds."""
        return int(np.count_nonzero(self._holders))

    @property
    def aside(self) -> int:
        """How many pages are set aside for sequences."""
        return int(np.count_nonzero(self._aside))

    @property
    def remembered(self) -> int:
        """How many free pages keep their content for reuse."""
        return len(self._remembered)

    def pages_for(self, tokens: int) -> int:
        """How many pages hold `tokens` tokens."""
        return -(-tokens // self.page_size)

    def set_aside(self, pages: int) -> Extent:
        """A run of `pages` consecutive free page numbers, or an empty extent where room is short."""
        start = self._find_run(pages)
        if start is None and self.budget.has_plenty(pages * self.bytes_per_page) and self._grow(pages):
            start = self._find_run(pages)
        if start is None:
            return Extent(0, 0)
        self._aside[start : start + pages] = True
        return Extent(start, start + pages)

    def give_up(self, extent: Extent) -> None:
        """Make an extent's page numbers available to everybody again; held pages stay held."""
        self._aside[extent.start : extent.stop] = False

    def allocate(self, extent: Extent, index: int) -> int:
        """A page with one holder: number `index` of the extent if it can be, any other if not.

        Raises CapacityError when every page is held.
        """
        preferred = extent.start + index
        is_free = preferred < extent.stop and preferred < self.capacity and not self._holders[preferred]
        page = preferred if is_free else self._any_page()
        forget = self._remembered.pop(page, None)
        if forget:
            forget(page)
        self._holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """Add a holder; a remembered page becomes held again, its content intact."""
        self._remembered.pop(page, None)
        self._holders[page] += 1

    def release(self, page: int, forget: Callable[[int], None] | None = None) -> None:
        """Take a holder away. With `forget`, the last one leaves the page remembered until it is needed."""
        self._holders[page] -= 1
        if not self._holders[page] and forget:
            self._remembered[page] = forget

    def is_shared(self, page: int) -> bool:
        """Whether writing to the page would be seen by another holder."""
        return bool(self._holders[page] > 1)

    def forget_all(self) -> None:
        """Drop all remembered content."""
        for page, forget in self._remembered.items():
            forget(page)
        self._remembered.clear()

    def shrink(self) -> None:
        """Give back the free pages at the end of the pool, remembered ones included."""
        used = np.flatnonzero(self._holders | self._aside)
        top = int(used[-1]) + 1 if len(used) else 0
        for page in [page for page in self._remembered if page >= top]:
            self._remembered.pop(page)(page)
        self.budget.give((self.capacity - top) * self.bytes_per_page)
        self._holders, self._aside = self._holders[:top].copy(), self._aside[:top].copy()

    def reclaim(self) -> None:
        """`shrink`, and set nothing aside any more: other pools need the room."""
        self._aside[:] = False
        self.shrink()

    def _find_run(self, pages: int) -> int | None:
        """The first run of free pages long enough, or failing that one that costs remembered content."""
        free = (self._holders == 0) & ~self._aside
        untouched = free.copy()
        untouched[list(self._remembered)] = False
        for candidates in (untouched, free):
            edges = np.flatnonzero(np.diff(np.concatenate(([0], candidates.view(np.int8), [0]))))
            for start, stop in zip(edges[::2], edges[1::2]):
                if stop - start >= pages:
                    return int(start)
        return None

    def _any_page(self) -> int:
        free = self._holders == 0
        empty = free.copy()
        empty[list(self._remembered)] = False
        if (empty & ~self._aside).any():
            return int((empty & ~self._aside).argmax())
        for page in self._remembered:  # the least recently released first
            if not self._aside[page]:
                return page
        if self._grow(1):
            return self.capacity - 1
        for candidates in (empty, free):
            if candidates.any():
                return int(candidates.argmax())
        raise CapacityError(f"all {self.capacity} pages of the KV store are held")

    def _grow(self, pages: int) -> bool:
        if not self.budget.take(pages * self.bytes_per_page):
            return False
        self._holders = np.concatenate([self._holders, np.zeros(pages, np.int32)])
        self._aside = np.concatenate([self._aside, np.zeros(pages, np.bool_)])
        return True
