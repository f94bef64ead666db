"""A budget: how many bytes the pages of several pools may take together."""

from __future__ import annotations


class Budget:
    """Bytes that are taken and given back; `limit` may change at any time (None: any number)."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.taken = 0

    def take(self, count: int) -> bool:
        """Whether there were as many left; they are taken then."""
        if self.limit is not None and self.taken + count > self.limit:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        """Give back as many."""
        self.taken -= count

    def has_plenty(self, count: int) -> bool:
        """Whether half of it is left once as many are taken."""
        return self.limit is None or 2 * (self.taken + count) <= self.limit
