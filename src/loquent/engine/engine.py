"""The engine: requests come and go at any step, and each step schedules, runs one forward pass, and delivers."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PagePool, PrefixIndex, Sequence
from loquent.decoding.task import Decoding, Task
from loquent.engine.backend import Backend, Forward, Segment
from loquent.engine.choosing import Chooser
from loquent.engine.delivery import deliver
from loquent.engine.fair_lock import FairLock
from loquent.engine.request import Handle, Request
from loquent.engine.scheduler import Scheduler, Share
from loquent.engine.sharing import PrefixSharing
from loquent.errors import CapacityError


class Engine:
    """Runs any mix of requests over one model, all of their reads in shared forward passes.

    Whoever waits for a request calls `step()` until it is done; several threads may, and each step serves them all.

    Args:
        backend: the model.
        page_size: tokens per page of the KV store.
        kv_tokens: how many tokens the store may hold (None: as many as requests need).
        step_tokens: how many tokens a step reads at most; longer prompts are read in chunks.
        max_running: how many requests run at once; the others wait their turn.
        reuse_prefixes: whether requests that share a beginning share its pages.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        page_size: int = 16,
        kv_tokens: int | None = None,
        step_tokens: int = 2048,
        max_running: int = 256,
        reuse_prefixes: bool = True,
    ) -> None:
        self.backend = backend
        self.pool = PagePool(page_size, None if kv_tokens is None else kv_tokens // page_size)
        self.scheduler = Scheduler(step_tokens, max_running, self.pool.limit)
        self._prefixes = PrefixIndex() if reuse_prefixes and backend.incremental else None
        self._sharing = None if self._prefixes is None else PrefixSharing(self._prefixes, page_size)
        self._store = backend.open_store(page_size)
        self.lock = FairLock()
        self._is_stale = False  # whether remembered pages hold what other weights computed
        self._steps_within = 0  # more than one where a caller's rule or criterion generates with the same model
        self._leaving: list[Request] = []  # cancelled within a step, which may still be working on them
        self.steps = 0

    def submit(self, prompt: Items[int] | NDArray[np.int64], decoding: Decoding) -> Handle:
        """Queue a request; it starts with one of the next steps.

        Raises:
            CapacityError: it cannot fit into the store even alone.
        """
        tokens = np.asarray(prompt, np.int64)
        pages = self._pages_needed(len(tokens), decoding)
        if self.pool.limit is not None and pages > self.pool.limit:
            size = self.pool.page_size
            raise CapacityError(
                f"The request may need {pages * size} tokens of KV store ({len(tokens)} of prompt, "
                f"{decoding.stopping.max_new_tokens} new, in {decoding.branches} sequences), "
                f"and there are {self.pool.limit * size}. Ask for fewer, or give the engine more kv_tokens."
            )
        task = Task(tokens, decoding, open=lambda: self._open(request))
        request = Request(task, pages, self._clear, Chooser(task) if self.backend.selects else None)
        with self.lock:
            self.scheduler.waiting.append(request)
        return Handle(request, self._cancel)

    def step(self) -> bool:
        """One step of everything that runs. Returns whether anything is left to do."""
        with self.lock:
            self._steps_within += 1
            try:
                for request in self.scheduler.admit():
                    request.start()
                shares = self._schedule()
                if shares:
                    self._serve(shares)
            finally:
                self._steps_within -= 1
                self._let_go()
            return not self.scheduler.idle

    def refresh(self) -> None:
        """Drop what is remembered for reuse if the weights have changed; to be called before requests are submitted."""
        with self.lock:
            self._is_stale |= self.backend.weights_changed()
            if self._is_stale and self.scheduler.idle:
                self.pool.forget_all()
                self._is_stale = False

    def release_memory(self) -> None:
        """Give back the store's memory that no running request holds."""
        with self.lock:
            self.pool.shrink()
            if self.pool.capacity < self._store.pages:
                self._store.resize(self.pool.capacity)

    @property
    def store_bytes(self) -> int:
        """How much memory the store takes now."""
        return self._store.pages * self._store.bytes_per_page

    def _span(self, prompt: int, decoding: Decoding) -> int:
        """The longest that a sequence of the request becomes."""
        whole = prompt + decoding.stopping.max_new_tokens
        return min(whole, decoding.context) if decoding.context else whole

    def _pages_needed(self, prompt: int, decoding: Decoding) -> int:
        """The most pages that the request holds at once: whole pages of the prompt are shared by its sequences."""
        span = self._span(prompt, decoding)
        shared = min(prompt, span) // self.pool.page_size if decoding.branches > 1 else 0
        copied = 1 if decoding.branches > 1 else 0  # a page and its copy, for the moment of copying
        return shared + decoding.branches * (self.pool.pages_for(span) - shared) + copied

    def _open(self, request: Request) -> Sequence:
        span = self._span(len(request.task.prompt), request.task.decoding)
        sequence = Sequence(
            self.pool, span=span, room=span, prefixes=self._prefixes, salt=self.backend.prefix_key(span)
        )
        sequence.family = request.sequences
        request.sequences.append(sequence)
        return sequence

    def _clear(self, pages: list[int]) -> None:
        """Zero what a failed request leaves behind: a number that is none would spread through masked reads."""
        pages = [page for page in pages if page < self._store.pages]
        if pages:
            self._store.clear(pages)

    def _cancel(self, request: Request) -> None:
        with self.lock:
            self._leaving.append(request)
            self._let_go()

    def _let_go(self) -> None:
        """Forget the requests that are done or cancelled; within a step its end does so."""
        if self._steps_within:
            return
        while self._leaving:
            request = self._leaving.pop()
            if not request.done:
                request.finish()
            if request in self.scheduler.waiting:
                self.scheduler.waiting.remove(request)
        self.scheduler.retire()

    def _schedule(self) -> list[Share]:
        ends, prompts = self.scheduler.pending()
        if self._sharing is not None:
            if self._is_stale:
                self._sharing.release(prompts)
            else:
                self._sharing.begin(prompts)
        return self.scheduler.shares(ends, prompts, self.backend.incremental)

    def _serve(self, shares: list[Share]) -> None:
        try:
            segments = self._segments(shares)
            forward = self.backend.run(self._store, segments)
            self.steps += 1
            self._complete(shares, forward)
        except BaseException as error:  # what broke the pass breaks the requests that were in it, and no others
            for share in shares:
                if not share.pending.request.done:
                    share.pending.request.fail(error)
            if not isinstance(error, Exception):
                raise  # an interrupt is for the thread that it reached

    def _segments(self, shares: list[Share]) -> list[Segment]:
        segments: list[Segment] = []
        copies: list[tuple[int, int]] = []
        for share in shares:
            pending = share.pending
            sequence, tokens, request = pending.read.sequence, pending.read.tokens, pending.request
            if share.count < len(tokens):
                tokens = tokens[pending.fed : pending.fed + share.count]
            if not self.backend.incremental:
                tokens = np.concatenate([sequence.tokens, tokens])
                sequence.rewind(0)
            needed = sequence.prepare(tokens)
            if needed:
                if {target for _, target in needed} & {source for source, _ in copies}:
                    self._copy(copies)  # the page that is copied into must not be one that has yet to be copied from
                    copies = []
                copies += needed
            choice = None
            if share.last and request.chooser is not None:
                choice = request.chooser.choice(pending.number, pending.read.want, sequence)
            segments.append(Segment(sequence.coming, len(sequence), sequence.pages, share.rows, sequence.span, choice))
        self._copy(copies)
        return segments

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        """Copy pages (source, target), in a store that has all of the pool's pages."""
        if self.pool.capacity > self._store.pages:
            room = max(self.pool.capacity, self._store.pages * 5 // 4)
            self._store.resize(room if self.pool.limit is None else min(room, self.pool.limit))
        if copies:
            self._store.copy([source for source, _ in copies], [target for _, target in copies])

    def _complete(self, shares: list[Share], forward: Forward) -> None:
        for share in shares:
            share.pending.read.sequence.extend()
            share.pending.advance(share.count)
        deliver(shares, forward)
        for request in dict.fromkeys([share.pending.request for share in shares]):
            if not request.done:
                request.answer()
