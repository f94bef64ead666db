"""A reader: a backend with the store, pages and remembered prefixes that requests read with."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Budget, PageCopy, PageSpace, Sequence, StoreKind
from loquent.engine.backend import Backend, Forward, Segment
from loquent.engine.prompt_file import SavedPrompt, page_range
from loquent.engine.request import PendingRead, Request
from loquent.engine.scheduler import Scheduler, Share
from loquent.engine.sharing import PrefixSharing
from loquent.errors import CapacityError


class StoreMemory(NamedTuple):
    """What a part of a KV store takes, in bytes."""

    place: str  # "memory" (the model's device, or the process), "host" (of a GPU) or "file"
    form: str  # "exact" or "coded"
    held: int  # by requests
    remembered: int  # of what was read, for requests that begin equally
    taken: int  # in all, free room included


class Reader:
    """Keeps what one model has read, and reads more.

    Args:
        backend: the model.
        kind: how its keys and values are kept.
        page_size: tokens per page of the KV store, where its kind does not say.
        budget: what the store may take, if its pages are where the budget counts.
        reuse_prefixes: whether sequences that share a beginning share its pages.
    """

    def __init__(self, backend: Backend, kind: StoreKind, page_size: int, budget: Budget, reuse_prefixes: bool) -> None:
        self.backend, self.kind = backend, kind
        self.store = backend.open_store(page_size, kind)
        budget = budget if self.store.place == "memory" else Budget()
        self.space = PageSpace(self.store.groups, self.store.page_size, budget, reuse_prefixes and backend.incremental)
        self._sharing = None if self.space.prefixes is None else PrefixSharing(self.space)
        self._is_stale = False  # whether remembered pages hold what other weights computed

    @property
    def recovers(self) -> bool:
        """Whether a sequence's pages may be taken away, to be shared as before when it is read again."""
        return self._sharing is not None

    def open(self, request: Request, span: int) -> Sequence:
        """A new sequence for the request, which becomes at most `span` tokens long."""
        sequence = Sequence(self.space, span=span, room=span, salt=self.backend.prefix_key(span))
        sequence.family, sequence.home = request.sequences, self
        request.sequences.append(sequence)
        return sequence

    def shares(self, scheduler: Scheduler, ends: list[PendingRead], prompts: list[PendingRead]) -> list[Share]:
        """The next step's work for these reads."""
        if self._sharing is not None:
            if self._is_stale:
                self._sharing.release(prompts)
            else:
                self._sharing.begin(prompts)
        return scheduler.shares(ends, prompts, self.backend.incremental)

    def leave(self, request: Request) -> None:
        """A request loses its pages."""
        if self._sharing is not None:
            self._sharing.leave(request)

    def prepare(self, share: Share) -> list[PageCopy]:
        """Make room for a share's tokens; returns what must be copied before it runs.

        Raises:
            CapacityError: there is no page left; nothing has changed.
        """
        pending = share.pending
        sequence, tokens = pending.read.sequence, pending.read.tokens
        own = share.count - share.again
        if own < len(tokens):
            tokens = tokens[pending.fed : pending.fed + own]
        if not self.backend.incremental:
            tokens = np.concatenate([sequence.tokens, tokens])
            memory = sequence.memory.fork()  # the text stays the same
            sequence.rewind(0)
            sequence.memory = memory
        return sequence.prepare(tokens, share.again)

    def run(self, shares: Items[Share], copies: Items[list[PageCopy]]) -> Forward:
        """One forward pass over shares that are prepared; the sequences hold what has been read afterwards."""
        self._reach()
        if any(copies):
            self._copy(copies)
        segments = self._segments(shares)
        layers: dict[int, None] = {}
        for share in shares:
            if share.pending.layers:
                layers |= dict.fromkeys(share.pending.layers)
        forward = self.backend.run(self.store, segments, tuple(layers))
        for share in shares:
            share.pending.read.sequence.extend()
            share.pending.advance(share.count - share.again)
        return forward

    def refresh(self, changed: bool, idle: bool) -> bool:
        """Drop what is remembered for reuse if the weights have `changed`; while requests run, when they are done.

        Returns whether it did so.
        """
        self._is_stale |= changed
        if not (self._is_stale and idle):
            return False
        self.space.forget_all()
        self._is_stale = False
        return True

    def clear(self, pages: Items[tuple[int, list[int]]]) -> None:
        """Zero what a failed request leaves behind: a number that is none would spread through masked reads."""
        for group, numbers in pages:
            known = [page for page in numbers if page < self.store.pages(group)]
            if known:
                self.store.clear(group, known)

    def saved(self, sequence: Sequence, length: int) -> tuple[NDArray[np.uint8], ...]:
        """What the pages hold, by group, that the tokens behind a sequence's first `length`, whole pages, see."""
        contents = []
        for number, (group, table) in enumerate(zip(self.space.groups, sequence.tables)):
            first, stop = page_range(group, length, self.space.page_size)
            contents.append(self.store.read_pages(number, table[first:stop].tolist()))
        return tuple(contents)

    def restore(self, saved: SavedPrompt, span: int) -> None:
        """Remember pages, as if their tokens had been read for a sequence of this span.

        Where there is no room for them nothing is remembered, and they are read.
        """
        sequence = Sequence(self.space, span=span, salt=self.backend.prefix_key(span))
        try:
            if self.space.known(sequence.keys(saved.tokens)) * self.space.page_size < len(saved.tokens):
                sequence.begin(saved.tokens)
                self._reach()
                for number, (table, content) in enumerate(zip(sequence.tables, saved.pages)):
                    self.store.write_pages(number, table[len(table) - len(content) :].tolist(), content)
                sequence.extend()
        except CapacityError:
            pass
        finally:
            sequence.close()

    def release_memory(self) -> None:
        """Give back the store's memory that no running request holds."""
        self.space.shrink()
        self._fit()

    def reclaim(self) -> None:
        """`release_memory`, and set nothing aside any more: other stores or groups need the room."""
        self.space.reclaim()
        self._fit()

    def memory(self) -> list[StoreMemory]:
        """What each group of the store takes."""
        store = self.store
        return [
            StoreMemory(
                store.place,
                "coded" if group.residual is not None else "exact",
                pool.held * group.bytes_per_page,
                pool.remembered * group.bytes_per_page,
                store.pages(number) * group.bytes_per_page,
            )
            for number, (group, pool) in enumerate(zip(self.space.groups, self.space.pools))
        ]

    @property
    def store_bytes(self) -> int:
        """How much memory the store takes now."""
        return sum(memory.taken for memory in self.memory())

    def _segments(self, shares: Items[Share]) -> list[Segment]:
        segments: list[Segment] = []
        selects, is_coded = self.backend.selects, self.space.is_coded
        for share in shares:
            pending = share.pending
            sequence, request = pending.read.sequence, pending.request
            choice = None
            if selects and share.last and request.chooser is not None and len(pending.asked) == 1:
                choice = request.chooser.choice(pending.number, pending.asked[0].want, sequence)
            scored = None if share.scored == share.rows else share.scored
            coded = sequence.coded if is_coded else ()
            rows, span = share.rows, sequence.span
            segments.append(
                Segment(sequence.coming, sequence.stored, sequence.tables, rows, span, choice, scored, coded)
            )
        return segments

    def _reach(self) -> None:
        """Let the store have all of the pools' pages."""
        for group, pool in enumerate(self.space.pools):
            has = self.store.pages(group)
            if pool.capacity > has:
                budget = pool.budget
                room = max(pool.capacity, has * 5 // 4)
                if budget.limit is not None:
                    spare = (budget.limit - budget.taken) // pool.bytes_per_page
                    room = max(pool.capacity, min(room, pool.capacity + spare))
                self.store.resize(group, room)

    def _fit(self) -> None:
        """Let the store have no more pages than the pools."""
        for group, pool in enumerate(self.space.pools):
            if pool.capacity < self.store.pages(group):
                self.store.resize(group, pool.capacity)

    def _copy(self, copies: Items[list[PageCopy]]) -> None:
        """Make the copies of each share, in the order of the shares: one may copy into a page that another has left."""
        waiting: dict[int, dict[int, int]] = {}  # group -> target -> source
        for needed in copies:
            for group, source, target in needed:
                pairs = waiting.setdefault(group, {})
                if target in pairs.values() or source in pairs:
                    self._copy_pages(group, pairs)
                    pairs.clear()
                pairs[target] = source
        for group, pairs in waiting.items():
            self._copy_pages(group, pairs)

    def _copy_pages(self, group: int, pairs: dict[int, int]) -> None:
        if pairs:
            self.store.copy(group, list(pairs.values()), list(pairs))
