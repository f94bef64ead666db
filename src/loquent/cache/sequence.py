"""A sequence: tokens that have been read, and the pages where their keys and values are; it runs nothing."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.cache.memory import Memory
from loquent.cache.pool import Extent, PagePool
from loquent.cache.prefix import PageKey, PrefixIndex, page_keys


class Sequence:
    """Tokens and their place in a KV store. A strategy forks, rewinds and closes it; only the engine makes it grow.

    `room` is how many tokens it is expected to reach, so that its pages can be consecutive; `span` the longest it may
    become; `salt` what its content depends on besides tokens.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        span: int,
        room: int = 0,
        prefixes: PrefixIndex | None = None,
        salt: Hashable = None,
    ) -> None:
        self.span = span
        self.closed = False
        self.family: list[Sequence] = []  # where forks are listed too, so that whoever owns them can close them all
        self.salt = salt
        self.memory = Memory()  # of the rules that act on the rows behind it
        self.home: object = None  # who opened it, and reads it
        self.shadow: Sequence | None = None  # another that forks, rewinds and closes with it
        self._pool, self._prefixes = pool, prefixes
        self._extent = pool.set_aside(pool.pages_for(room)) if room else Extent(0, 0)
        self._buffer: NDArray[np.int64] = np.zeros(max(room, 16), np.int64)
        self._length = self._coming = 0
        self._pages: list[int] = []
        self._table: NDArray[np.int64] = np.zeros(16, np.int64)  # the first `_tabled` pages, and room for more
        self._tabled = 0
        self._keys: list[PageKey] = []  # of the whole pages offered to the index

    def __len__(self) -> int:
        return self._length

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The tokens read so far, (length,); a view that is right until the next read."""
        return self._buffer[: self._length]

    @property
    def coming(self) -> NDArray[np.int64]:
        """The tokens that `prepare` made room for, (count,); a view that is right until the next ones."""
        return self._buffer[self._length : self._coming]

    @property
    def text(self) -> NDArray[np.int64]:
        """The tokens read so far and those coming, (length + count,); a view that is right until the next ones."""
        return self._buffer[: self._coming]

    @property
    def pages(self) -> NDArray[np.int64]:
        """The page table, (pages,); a view that is right until the next change, and not to be written to."""
        count, tabled = len(self._pages), self._tabled
        if tabled < count:
            if count > len(self._table):
                self._table = np.concatenate([self._table, np.zeros(count, np.int64)])
            self._table[tabled:count] = self._pages[tabled:]
            self._tabled = count
        return self._table[:count]

    def fork(self) -> Sequence:
        """A second sequence with the same tokens; both share every page until one of them writes to it."""
        if self.closed:
            raise ValueError("a closed sequence cannot be forked")
        twin = Sequence(self._pool, span=self.span, prefixes=self._prefixes, salt=self.salt)
        twin._buffer, twin._length, twin._pages = self._buffer.copy(), self._length, list(self._pages)
        twin._coming, twin._table, twin._tabled = self._length, self._table.copy(), self._tabled
        twin._keys, twin.family, twin.memory = list(self._keys), self.family, self.memory.fork()
        twin.home = self.home
        if self.shadow is not None:
            twin.shadow = self.shadow.fork()
        twin.family.append(twin)
        for page in twin._pages:
            self._pool.share(page)
        return twin

    def rewind(self, length: int) -> None:
        """Forget the tokens from `length` on and give back the pages that they alone used."""
        if not 0 <= length <= self._length:
            raise ValueError(f"a sequence of {self._length} tokens cannot be rewound to {length}")
        if self.shadow is not None:
            self.shadow.rewind(max(0, len(self.shadow) - (self._length - length)))
        kept = self._pool.pages_for(length)
        for page in self._pages[kept:]:
            self._release(page)
        del self._pages[kept:]
        self._tabled = min(self._tabled, kept)
        del self._keys[length // self._pool.page_size :]
        self._length = self._coming = length
        self.memory.rewind(length)

    def close(self) -> None:
        """Give back every page; closing twice is allowed, reading a closed sequence is not."""
        if self.closed:
            return
        self.rewind(0)
        self._pool.give_up(self._extent)
        self.closed = True
        self.home = None  # an engine, which nobody keeps by keeping what it read
        if self.shadow is not None:
            self.shadow.close()
        if self in self.family:
            self.family.remove(self)

    def disown(self) -> list[int]:
        """The pages that nobody else holds, whose content is not to be found by anybody any more."""
        own = [page for page in self._pages if not self._pool.is_shared(page)]
        if self._prefixes is not None:
            for page in own:
                self._prefixes.forget(page)
        return own

    def adopt_prefix(self, tokens: Items[int] | NDArray[np.int64], keys: list[PageKey] | None = None) -> int:
        """Start with the longest remembered beginning of `tokens`; returns how many tokens that covers.

        `keys` are those of the pages that it may cover, where they are known.
        """
        if self._prefixes is None or self._length:
            return 0
        if keys is None:
            keys = page_keys(np.asarray(tokens, np.int64), self._pool.page_size, self.salt)
        pages = self._prefixes.longest(keys)
        for page in pages:
            self._pool.share(page)
        self._pages, self._keys, self._tabled = pages, keys[: len(pages)], 0
        self._put(tokens[: len(pages) * self._pool.page_size])
        self._length = self._coming
        return self._length

    def prepare(self, tokens: Items[int] | NDArray[np.int64]) -> list[tuple[int, int]]:
        """Make room for `tokens`, the next to be read, in pages of its own.

        Returns the page copies (source, target) that must happen before those tokens are written.
        """
        self._put(tokens)
        copies: list[tuple[int, int]] = []
        pages, page_size = self._pages, self._pool.page_size
        first = self._length // page_size
        if first < len(pages) and (
            self._pool.is_shared(pages[first]) or (self._prefixes is not None and self._prefixes.knows(pages[first]))
        ):
            copies.append((pages[first], self._pool.allocate(self._extent, first)))
            self._release(pages[first])
            pages[first], self._tabled = copies[0][1], min(self._tabled, first)
        while len(pages) * page_size < self._coming:
            pages.append(self._pool.allocate(self._extent, len(pages)))
        return copies

    def extend(self) -> None:
        """The tokens that `prepare` made room for have been written; whole pages are offered for reuse."""
        self._length = self._coming
        if self._prefixes is None:
            return
        offered, whole = len(self._keys), self._length // self._pool.page_size
        if offered < whole:
            page_keys(self.tokens, self._pool.page_size, self.salt, self._keys)
            for index in range(offered, whole):
                self._prefixes.add(self._keys[index], self._pages[index])

    def _put(self, tokens: Items[int] | NDArray[np.int64]) -> None:
        """Write `tokens` behind those read."""
        self._coming = self._length + len(tokens)
        if self._coming > len(self._buffer):
            self._buffer = np.concatenate([self.tokens, np.zeros(self._coming, np.int64)])
        if len(tokens) == 1:  # mostly, and many times faster than a slice
            self._buffer[self._length] = tokens[0]
        else:
            self._buffer[self._length : self._coming] = tokens

    def _release(self, page: int) -> None:
        prefixes = self._prefixes
        self._pool.release(page, prefixes.forget if prefixes is not None and prefixes.knows(page) else None)
