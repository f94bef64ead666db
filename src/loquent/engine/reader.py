"""A reader: a backend with the store, pages and remembered prefixes that requests read with."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np

from loquent.cache import PagePool, PrefixIndex, Sequence
from loquent.engine.backend import Backend, Forward, Segment
from loquent.engine.request import PendingRead, Request
from loquent.engine.scheduler import Scheduler, Share
from loquent.engine.sharing import PrefixSharing


class Reader:
    """Keeps what one model has read, and reads more.

    Args:
        backend: the model.
        page_size: tokens per page of the KV store.
        pages: how many there may be; None: any number.
        reuse_prefixes: whether sequences that share a beginning share its pages.
    """

    def __init__(self, backend: Backend, page_size: int, pages: int | None, reuse_prefixes: bool) -> None:
        self.backend = backend
        self.pool = PagePool(page_size, pages)
        self._prefixes = PrefixIndex() if reuse_prefixes and backend.incremental else None
        self._sharing = None if self._prefixes is None else PrefixSharing(self._prefixes, page_size)
        self._store = backend.open_store(page_size)
        self._is_stale = False  # whether remembered pages hold what other weights computed

    def open(self, request: Request, span: int) -> Sequence:
        """A new sequence for the request, which becomes at most `span` tokens long."""
        sequence = Sequence(
            self.pool, span=span, room=span, prefixes=self._prefixes, salt=self.backend.prefix_key(span)
        )
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

    def run(self, shares: Items[Share]) -> Forward:
        """One forward pass; the sequences hold what has been read afterwards."""
        segments = self._segments(shares)
        layers: dict[int, None] = {}
        for share in shares:
            if share.pending.layers:
                layers |= dict.fromkeys(share.pending.layers)
        forward = self.backend.run(self._store, segments, tuple(layers))
        for share in shares:
            share.pending.read.sequence.extend()
            share.pending.advance(share.count)
        return forward

    def refresh(self, idle: bool) -> None:
        """Drop what is remembered for reuse if the weights have changed; while requests run, when they are done."""
        self._is_stale |= self.backend.weights_changed()
        if self._is_stale and idle:
            self.pool.forget_all()
            self._is_stale = False

    def clear(self, pages: list[int]) -> None:
        """Zero what a failed request leaves behind: a number that is none would spread through masked reads."""
        pages = [page for page in pages if page < self._store.pages]
        if pages:
            self._store.clear(pages)

    def release_memory(self) -> None:
        """Give back the store's memory that no running request holds."""
        self.pool.shrink()
        if self.pool.capacity < self._store.pages:
            self._store.resize(self.pool.capacity)

    @property
    def store_bytes(self) -> int:
        """How much memory the store takes now."""
        return self._store.pages * self._store.bytes_per_page

    def _segments(self, shares: Items[Share]) -> list[Segment]:
        segments: list[Segment] = []
        copies: list[tuple[int, int]] = []
        incremental, selects = self.backend.incremental, self.backend.selects
        for share in shares:
            pending = share.pending
            sequence, tokens, request = pending.read.sequence, pending.read.tokens, pending.request
            if share.count < len(tokens):
                tokens = tokens[pending.fed : pending.fed + share.count]
            if not incremental:
                tokens = np.concatenate([sequence.tokens, tokens])
                memory = sequence.memory.fork()  # the text stays the same
                sequence.rewind(0)
                sequence.memory = memory
            needed = sequence.prepare(tokens)
            if needed:
                if {target for _, target in needed} & {source for source, _ in copies}:
                    self._copy(copies)  # the page that is copied into must not be one that has yet to be copied from
                    copies = []
                copies += needed
            choice = None
            if selects and share.last and request.chooser is not None and len(pending.asked) == 1:
                choice = request.chooser.choice(pending.number, pending.asked[0].want, sequence)
            scored = None if share.scored == share.rows else share.scored
            segments.append(
                Segment(sequence.coming, len(sequence), sequence.pages, share.rows, sequence.span, choice, scored)
            )
        self._copy(copies)
        return segments

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        """Copy pages (source, target), in a store that has all of the pool's pages."""
        if self.pool.capacity > self._store.pages:
            room = max(self.pool.capacity, self._store.pages * 5 // 4)
            self._store.resize(room if self.pool.limit is None else min(room, self.pool.limit))
        if copies:
            self._store.copy([source for source, _ in copies], [target for _, target in copies])
