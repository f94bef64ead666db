"""A page table: the pages of one sequence in one group of a store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loquent.cache.layout import PageGroup
from loquent.cache.pool import Extent, PagePool
from loquent.cache.prefix import PageKey, PrefixIndex
from loquent.errors import CapacityError

KEPT_BEHIND = 64
"""How many tokens behind a window are kept: drafts that are rewound make them visible again."""

NOWHERE = -1
"""The page number of what lies behind the window and has been given back."""


class PageTable:
    """Page number i holds tokens `i * page_size` and following; those before `first` have been given back.

    `room` is how many tokens the sequence is expected to reach, so that its pages can be consecutive.
    """

    __slots__ = ("_array", "_written", "extent", "first", "group", "pages", "pool", "prefixes", "ready")

    def __init__(self, group: PageGroup, pool: PagePool, prefixes: PrefixIndex | None, room: int) -> None:
        self.group, self.pool, self.prefixes = group, pool, prefixes
        # Pages that come and go behind a window are found wherever there are some.
        self.extent = pool.set_aside(pool.pages_for(room)) if room and group.window is None else Extent(0, 0)
        self.pages: list[int] = []
        self.first = 0
        self.ready = 0  # of a coded group: how many pages hold their codes
        self._array: NDArray[np.int64] = np.zeros(16, np.int64)  # the first `_written` pages, and room for more
        self._written = 0

    @property
    def array(self) -> NDArray[np.int64]:
        """The page numbers, (pages,); a view that is right until the next change, and not to be written to."""
        count, written = len(self.pages), self._written
        if written < count:
            if count > len(self._array):
                self._array = np.concatenate([self._array, np.zeros(count, np.int64)])
            self._array[written:count] = self.pages[written:]
            self._written = count
        return self._array[:count]

    def fork(self) -> PageTable:
        """Another over the same pages, which both hold."""
        twin = PageTable(self.group, self.pool, self.prefixes, 0)
        twin.pages, twin.first, twin.ready = list(self.pages), self.first, self.ready
        twin._array, twin._written = self._array.copy(), self._written
        for page in twin.pages[twin.first :]:
            self.pool.share(page)
        return twin

    def moved(self, pool: PagePool, prefixes: PrefixIndex | None, room: int, places: dict[int, int]) -> PageTable:
        """One of another pool. `places` has the page there of each page here; those that it lacks are added.

        One that shares its beginning gets no run of pages for itself: it could not be read in one anyway.
        """
        shares = len(self.pages) > self.first and self.pages[self.first] in places
        twin = PageTable(self.group, pool, prefixes, 0 if shares else room)
        twin.first, twin.ready = self.first, self.ready
        twin.pages = [NOWHERE] * self.first
        for index, page in enumerate(self.pages[self.first :], self.first):
            if page in places:
                pool.share(places[page])
            else:
                places[page] = pool.allocate(twin.extent, index)
            twin.pages.append(places[page])
        return twin

    def reach(self, stored: int, length: int) -> tuple[int, int] | None:
        """Have pages of its own for the tokens from `stored` to `length`, and give back what nobody sees any more.

        Returns the page copy (source, target) that must happen before those tokens are written, if there is one.

        Raises:
            CapacityError: there is no page left; nothing but what nobody sees has changed.
        """
        group, pages, page_size = self.group, self.pages, self.pool.page_size
        if group.window is not None:
            self._forget_before(min(group.first(stored - KEPT_BEHIND, page_size), len(pages)))
        count, written = len(pages), stored // page_size  # the latter is the page that is written to first
        wanted = -(-length // page_size) if group.residual is None else group.stop(length, page_size)
        must_copy = written < count and group.residual is None and self._is_known_elsewhere(pages[written])
        if wanted <= count and not must_copy:  # mostly
            return None
        try:
            while len(pages) < wanted:
                pages.append(self.pool.allocate(self.extent, len(pages)))
            copy = (pages[written], self.pool.allocate(self.extent, written)) if must_copy else None
        except CapacityError:
            self.cut(count)
            raise
        if copy is not None:
            self._replace(written, copy[1])
        return copy

    def undo(self, copy: tuple[int, int], count: int) -> None:
        """Take back a `reach` that made a copy and had `count` pages before; nothing was allocated since."""
        source, target = copy
        self.pool.share(source)
        self._replace(self.pages.index(target), source)
        self.cut(count)

    def cut(self, count: int) -> None:
        """Keep the first `count` pages, those given back counted, and give the others back."""
        for page in self.pages[max(count, self.first) :]:
            self._release(page)
        del self.pages[count:]
        self.first = min(self.first, count)
        self.ready = min(self.ready, count)
        self._written = min(self._written, count)

    def adopt(self, first: int, keys: list[PageKey]) -> None:
        """Begin with the remembered pages of these keys, number `first` and following; it must hold none."""
        assert self.prefixes is not None
        found = self.prefixes.pages(keys)
        for page in found:
            self.pool.share(page)
        self.pages = [NOWHERE] * first + found
        self.first, self.ready, self._written = first, len(self.pages), 0

    def begin(self, first: int, stop: int) -> None:
        """Begin with pages of its own, number `first` to `stop`, to be filled at once; it must hold none.

        Raises:
            CapacityError: there is no page left.
        """
        self.pages, self.first, self._written = [NOWHERE] * first, first, 0
        while len(self.pages) < stop:
            self.pages.append(self.pool.allocate(self.extent, len(self.pages)))

    def offer(self, keys: list[PageKey], first: int, stop: int) -> None:
        """Let pages `first` to `stop` be found by their keys."""
        if self.prefixes is not None:
            for index in range(max(first, self.first), min(stop, len(self.pages))):
                self.prefixes.add(keys[index], self.pages[index])

    def disown(self) -> list[int]:
        """The pages that nobody else holds, whose content is not to be found by anybody any more."""
        own = [page for page in self.pages[self.first :] if not self.pool.is_shared(page)]
        if self.prefixes is not None:
            for page in own:
                self.prefixes.forget(page)
        return own

    def give_up(self) -> None:
        """Give back the page numbers that were set aside."""
        self.pool.give_up(self.extent)
        self.extent = Extent(0, 0)

    def _forget_before(self, first: int) -> None:
        for index in range(self.first, first):
            self._release(self.pages[index])
            self.pages[index] = NOWHERE
        if first > self.first:
            self._written, self.first = min(self._written, self.first), first

    def _is_known_elsewhere(self, page: int) -> bool:
        return self.pool.is_shared(page) or (self.prefixes is not None and self.prefixes.knows(page))

    def _replace(self, index: int, page: int) -> None:
        self._release(self.pages[index])
        self.pages[index] = page
        self._written = min(self._written, index)

    def _release(self, page: int) -> None:
        prefixes = self.prefixes
        self.pool.release(page, prefixes.forget if prefixes is not None and prefixes.knows(page) else None)
