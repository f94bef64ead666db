"""A sequence: tokens that have been read, and the pages where their keys and values are; it runs nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Items
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loquent.cache.memory import Memory
from loquent.cache.prefix import PageKey, PrefixIndex, page_keys
from loquent.cache.space import PageSpace
from loquent.cache.table import PageTable
from loquent.errors import CapacityError


class PageCopy(NamedTuple):
    """A page that must be copied before a sequence writes to the copy."""

    group: int
    source: int
    target: int


class Sequence:
    """Tokens and their place in a KV store. A strategy forks, rewinds and closes it; only the engine makes it grow.

    Its text is all that has been read. The store may hold less of it (`stored`), where its pages were needed elsewhere:
    the rest is read again before anything else is.

    `room` is how many tokens it is expected to reach, so that its pages can be consecutive; `span` the longest it may
    become; `salt` what its content depends on besides tokens. `tables`: its first ones, if not empty.
    """

    def __init__(
        self,
        space: PageSpace,
        *,
        span: int,
        room: int = 0,
        salt: Hashable = None,
        tables: list[PageTable] | None = None,
    ) -> None:
        self.span = span
        self.closed = False
        self.family: list[Sequence] = []  # where forks are listed too, so that whoever owns them can close them all
        self.salt = salt
        self.memory = Memory()  # of the rules that act on the rows behind it
        self.home: object = None  # who opened it, and reads it
        self.shadow: Sequence | None = None  # another that forks, rewinds and closes with it
        self.stored = 0  # how many of the first tokens the store holds
        self.missing = 0  # how many of the last ones it does not, which are to be read again
        self._space, self._page_size = space, space.page_size
        self._tables = _new_tables(space, room) if tables is None else tables
        self._buffer: NDArray[np.int64] = np.zeros(max(room, 16), np.int64)
        self._length = self._coming = 0
        self._keys: list[PageKey] = []  # of the text's whole pages, as far as they were needed
        self._offered = 0  # how many of the first pages can be found by their keys

    def __len__(self) -> int:
        return self._length

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The tokens read so far, (length,); a view that is right until the next read."""
        return self._buffer[: self._length]

    @property
    def coming(self) -> NDArray[np.int64]:
        """The tokens that `prepare` made room for, (count,); a view that is right until the next ones."""
        return self._buffer[self.stored : self._coming]

    @property
    def text(self) -> NDArray[np.int64]:
        """The tokens read so far and those coming, (length + count,); a view that is right until the next ones."""
        return self._buffer[: self._coming]

    @property
    def tables(self) -> tuple[NDArray[np.int64], ...]:
        """The page numbers of each of the store's groups; views that are right until the next change."""
        tables = self._tables
        return (tables[0].array,) if len(tables) == 1 else tuple([table.array for table in tables])

    @property
    def coded(self) -> tuple[int, ...]:
        """For each of the store's groups, how many pages held their codes before `prepare`."""
        return tuple([table.ready for table in self._tables])

    def fork(self) -> Sequence:
        """A second sequence with the same tokens; both share every page until one of them writes to it."""
        if self.closed:
            raise ValueError("a closed sequence cannot be forked")
        twin = self._twin(self._space, [table.fork() for table in self._tables])
        twin.family, twin.home = self.family, self.home
        if self.shadow is not None:
            twin.shadow = self.shadow.fork()
        twin.family.append(twin)
        return twin

    def moved(self, space: PageSpace, room: int, places: Items[dict[int, int]]) -> Sequence:
        """One with the same tokens whose pages are in another space, which has the same groups.

        `places` has, for each group, the page there of each page here; those that it lacks are added. So pages that
        sequences share here, they share there.
        """
        return self._twin(
            space,
            [
                table.moved(pool, index, room, known)
                for table, pool, index, known in zip(self._tables, space.pools, _indexes(space), places)
            ],
        )

    def rewind(self, length: int) -> None:
        """Forget the tokens from `length` on and give back the pages that they alone used."""
        if not 0 <= length <= self._length:
            raise ValueError(f"a sequence of {self._length} tokens cannot be rewound to {length}")
        if self.shadow is not None:
            self.shadow.rewind(max(0, len(self.shadow) - (self._length - length)))
        self._length = length
        del self._keys[length // self._page_size :]
        self._keep(min(self.stored, length))
        self.memory.rewind(length)

    def evict(self) -> None:
        """Give back every page; the text stays, and is read again before the sequence is read on."""
        self._keep(0)
        for table in self._tables:
            table.give_up()

    def close(self) -> None:
        """Give back every page; closing twice is allowed, reading a closed sequence is not."""
        if self.closed:
            return
        self.rewind(0)
        for table in self._tables:
            table.give_up()
        self.closed = True
        self.home = None  # an engine, which nobody keeps by keeping what it read
        if self.shadow is not None:
            self.shadow.close()
        if self in self.family:
            self.family.remove(self)

    def disown(self) -> list[tuple[int, list[int]]]:
        """The pages that nobody else holds, by group, whose content is not to be found by anybody any more."""
        return [(group, table.disown()) for group, table in enumerate(self._tables)]

    def keys(self, tokens: Items[int] | NDArray[np.int64] = ()) -> list[PageKey]:
        """The keys of the whole pages of its text, followed by `tokens`."""
        keys = page_keys(self.tokens, self._page_size, self.salt, self._keys)
        if not len(tokens):
            return list(keys)
        return page_keys(np.concatenate([self.tokens, tokens]), self._page_size, self.salt, list(keys))

    def adopt_prefix(self, tokens: Items[int] | NDArray[np.int64] = (), keys: list[PageKey] | None = None) -> int:
        """Start with the longest remembered beginning of its text, followed by `tokens`, where it holds nothing yet.

        `keys` are those of the pages that it may cover, where they are known. Returns how many of `tokens` it covers.
        """
        if self._space.prefixes is None or self.stored:
            return 0
        keys = self.keys(tokens) if keys is None else keys
        count = self._space.known(keys)
        stored = count * self._page_size
        for table in self._tables:
            first, stop = table.group.first(stored, self._page_size), table.group.stop(stored, self._page_size)
            first = min(first, stop)
            table.adopt(first, keys[first:stop])
        gained = max(0, stored - self._length)
        self._put(tokens[:gained])
        self._keys, self._offered = keys[: max(count, len(self._keys))], count
        self.stored, self._coming = stored, stored
        self._length += gained
        self.missing = self._length - stored
        return gained

    def prepare(self, tokens: Items[int] | NDArray[np.int64], again: int = 0) -> list[PageCopy]:
        """Make room for the next `again` missing tokens and then for `tokens`, which follow its text.

        Returns the page copies that must happen before they are written.

        Raises:
            CapacityError: there is no page left; nothing has changed.
        """
        self._put(tokens)
        self._coming = self.stored + again + len(tokens)
        if len(self._tables) == 1:  # mostly
            only = self._tables[0].reach(self.stored, self._coming)
            return [] if only is None else [PageCopy(0, *only)]
        copies: list[PageCopy] = []
        counts: list[int] = []
        for group, table in enumerate(self._tables):
            counts.append(len(table.pages))
            try:
                copy = table.reach(self.stored, self._coming)
            except CapacityError:
                self._undo(counts[:-1], copies)
                raise
            if copy is not None:
                copies.append(PageCopy(group, *copy))
        return copies

    def begin(self, tokens: NDArray[np.int64]) -> None:
        """Have pages, to be filled from outside, that what follows these whole pages of tokens sees; it holds none yet.

        Raises:
            CapacityError: there are not so many pages.
        """
        for table in self._tables:
            stop = table.group.stop(len(tokens), self._page_size)
            table.begin(min(table.group.first(len(tokens), self._page_size), stop), stop)
        self._put(tokens)
        self._coming = len(tokens)

    def extend(self) -> None:
        """The tokens that `prepare` made room for have been written; whole pages are offered for reuse."""
        self.stored = self._coming
        if self.missing:
            self.missing = max(0, self._length - self.stored)
        if self.stored > self._length:
            self._length = self.stored
        whole = self.stored // self._page_size
        if whole > self._offered:
            self._offer(whole)
        if self._space.is_coded:
            for table in self._tables:
                if table.group.residual is not None and table.ready < len(table.pages):
                    table.offer(self._keys, table.ready, len(table.pages))
                    table.ready = len(table.pages)

    def _twin(self, space: PageSpace, tables: list[PageTable]) -> Sequence:
        """A sequence with the same text, whose pages are those of `tables`."""
        twin = Sequence(space, span=self.span, salt=self.salt, tables=tables)
        twin._buffer, twin._length, twin.stored = self._buffer.copy(), self._length, self.stored
        twin._coming, twin.missing = twin.stored, self.missing
        twin._keys, twin._offered = list(self._keys), self._offered
        twin.memory = self.memory.fork()
        return twin

    def _offer(self, whole: int) -> None:
        """Let the first `whole` pages be found by their keys."""
        if self._space.prefixes is not None:
            if len(self._keys) < whole:
                page_keys(self.tokens, self._page_size, self.salt, self._keys)
            for table in self._tables:
                if table.group.residual is None:
                    table.offer(self._keys, self._offered, whole)
        self._offered = whole

    def _keep(self, stored: int) -> None:
        """Let the store hold the first `stored` tokens, or none where it does not hold all that they need."""
        size = self._page_size
        if any(table.first > table.group.first(stored, size) for table in self._tables):
            stored = 0
        for table in self._tables:
            # Of a coded group's pages those stay that are of these tokens alone.
            table.cut(stored // size if table.group.residual is not None else -(-stored // size))
        self.stored = self._coming = stored
        self.missing = self._length - stored
        self._offered = min(self._offered, stored // size)

    def _undo(self, counts: list[int], copies: list[PageCopy]) -> None:
        """Take back what `prepare` has done to the first tables, which had so many pages."""
        copied = {copy.group: (copy.source, copy.target) for copy in copies}
        for group, (table, count) in enumerate(zip(self._tables, counts)):
            if group in copied:
                table.undo(copied[group], count)
            else:
                table.cut(count)
        self._coming = self.stored

    def _put(self, tokens: Items[int] | NDArray[np.int64]) -> None:
        """Write `tokens` behind its text."""
        stop = self._length + len(tokens)
        if stop > len(self._buffer):
            self._buffer = np.concatenate([self.tokens, np.zeros(stop, np.int64)])
        if len(tokens) == 1:  # mostly, and many times faster than a slice
            self._buffer[self._length] = tokens[0]
        else:
            self._buffer[self._length : stop] = tokens


def _new_tables(space: PageSpace, room: int) -> list[PageTable]:
    return [PageTable(*place, room) for place in zip(space.groups, space.pools, _indexes(space))]


def _indexes(space: PageSpace) -> Iterable[PrefixIndex | None]:
    return space.prefixes or repeat(None)
