"""The page space of a store: a pool for each of its groups, and how remembered pages are found again."""

from __future__ import annotations

import weakref
from collections.abc import Sequence as Items

import numpy as np

from loquent.cache.budget import Budget
from loquent.cache.layout import PageGroup
from loquent.cache.pool import PagePool
from loquent.cache.prefix import PageKey, PrefixIndex


class PageSpace:
    """Who holds which page of one store.

    Args:
        groups: the store's.
        page_size: tokens per page.
        budget: what the pages may take, of this and of other spaces.
        reuse: whether pages whose content is known are remembered, for sequences with an equal beginning.
    """

    def __init__(
        self, groups: Items[PageGroup], page_size: int, budget: Budget | None = None, reuse: bool = True
    ) -> None:
        self.groups, self.page_size = tuple(groups), page_size
        self.budget = Budget() if budget is None else budget
        self.pools = [PagePool(page_size, group.bytes_per_page, self.budget) for group in self.groups]
        weakref.finalize(self, _give_back, self.pools).atexit = False
        self.prefixes = [PrefixIndex() for _ in self.groups] if reuse else None
        self.is_coded = any(group.residual is not None for group in self.groups)
        self._is_plain = len(self.groups) == 1 and self.groups[0].window is None

    @property
    def held(self) -> int:
        """How many pages at least one sequence holds."""
        return sum(pool.held for pool in self.pools)

    @property
    def remembered(self) -> int:
        """How many free pages keep their content for reuse."""
        return sum(pool.remembered for pool in self.pools)

    @property
    def aside(self) -> int:
        """How many pages are set aside for sequences."""
        return sum(pool.aside for pool in self.pools)

    @property
    def capacity(self) -> int:
        """How many pages the store must have."""
        return sum(pool.capacity for pool in self.pools)

    @property
    def held_bytes(self) -> int:
        """What the held pages take."""
        return sum(pool.held * pool.bytes_per_page for pool in self.pools)

    def known(self, keys: list[PageKey]) -> int:
        """How many pages of a beginning a new sequence can start with: all that the next token's query needs is there.

        That is fewer than are known where a window's pages have been reused for other content.
        """
        if self.prefixes is None or not keys:
            return 0
        if self._is_plain:
            return len(self.prefixes[0].longest(keys))
        counts = np.arange(1, len(keys) + 1)
        possible = np.ones(len(keys), np.bool_)  # whether the first 1, 2, ... pages can be started with
        for group, prefixes in zip(self.groups, self.prefixes):
            missing = np.array([key not in prefixes for key in keys])
            last_missing = np.maximum.accumulate(np.where(missing, counts, 0))  # as a count: 0 where none is
            for at, count in enumerate(counts.tolist()):
                length = count * self.page_size
                stop = min(group.stop(length, self.page_size), count)
                first = group.first(length, self.page_size)
                possible[at] &= not stop or last_missing[stop - 1] <= first
        found = np.flatnonzero(possible)
        return int(counts[found[-1]]) if len(found) else 0

    def may_know(self, key: PageKey) -> bool:
        """Whether a beginning may be known whose first page has this key."""
        if self.prefixes is None:
            return False
        return not self._is_plain or key in self.prefixes[0]

    def forget_all(self) -> None:
        """Drop all remembered content."""
        for pool in self.pools:
            pool.forget_all()

    def shrink(self) -> None:
        """Give back the free pages at the end of the pools, remembered ones included."""
        for pool in self.pools:
            pool.shrink()

    def reclaim(self) -> None:
        """`shrink`, and set nothing aside any more."""
        for pool in self.pools:
            pool.reclaim()


def _give_back(pools: list[PagePool]) -> None:
    """What the pools of a space that is gone have taken; its store is gone with it."""
    for pool in pools:
        pool.budget.give(pool.capacity * pool.bytes_per_page)
