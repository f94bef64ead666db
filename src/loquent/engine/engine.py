"""The engine: requests come and go at any step, and each step schedules, runs one forward pass, and delivers."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PagePool, Sequence
from loquent.decoding.recording import Recording
from loquent.decoding.task import Decoding, Task
from loquent.engine.backend import Backend
from loquent.engine.choosing import Chooser
from loquent.engine.delivery import deliver, select
from loquent.engine.fair_lock import FairLock
from loquent.engine.reader import Reader
from loquent.engine.request import Handle, Request
from loquent.engine.scheduler import Scheduler, Share
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
        self.page_size, self.reuse_prefixes = page_size, reuse_prefixes
        pages = None if kv_tokens is None else kv_tokens // page_size
        self._main = Reader(backend, page_size, pages, reuse_prefixes)
        self._further: WeakSet[Reader] = WeakSet()  # they live as long as their owners and the requests that read
        self.scheduler = Scheduler(step_tokens, max_running, self.pool.limit)
        self.lock = FairLock()
        self._steps_within = 0  # more than one where a caller's rule or criterion generates with the same model
        self._leaving: list[Request] = []  # cancelled within a step, which may still be working on them
        self.steps = 0

    @property
    def backend(self) -> Backend:
        """The model."""
        return self._main.backend

    @property
    def pool(self) -> PagePool:
        """Who holds which page of the model's store."""
        return self._main.pool

    def add_reader(self, backend: Backend) -> Reader:
        """Let requests read with another model too, such as a draft (`Decoding.readers`), with a store of its own.

        It lasts as long as the caller or a running request holds it.
        """
        with self.lock:
            reader = Reader(backend, self.page_size, None, self.reuse_prefixes)
            self._further.add(reader)
            return reader

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
        task = Task(tokens, decoding, open=lambda reader=None, prompt=None: self._open(request, reader, prompt))
        recording = Recording(decoding.recorded) if decoding.recorded else None
        # A backend that selects uses up the rows that are to be recorded.
        selects = any(reader.backend.selects for reader in (self._main, *decoding.readers))
        chooser = Chooser(task) if selects and recording is None else None
        request = Request(task, pages, _clear, chooser, recording=recording)
        with self.lock:
            self.scheduler.add(request)
        return Handle(request, self._cancel)

    def step(self) -> bool:
        """One step of everything that runs. Returns whether anything is left to do."""
        with self.lock:
            self._steps_within += 1
            try:
                self.scheduler.expire(time.monotonic)
                for request in self.scheduler.admit():
                    request.start()
                further = self._used()
                if not further or not self._waits_for_drafts():
                    self._pass(self._main, bool(further))
                for reader in further:
                    self._pass(reader, True)
            finally:
                self._steps_within -= 1
                self._let_go()
            return not self.scheduler.idle

    def refresh(self) -> None:
        """Drop what is remembered for reuse if the weights have changed; to be called before requests are submitted."""
        with self.lock:
            for reader in self._readers():
                reader.refresh(self.scheduler.idle)

    def release_memory(self) -> None:
        """Give back the stores' memory that no running request holds."""
        with self.lock:
            for reader in self._readers():
                reader.release_memory()

    @property
    def store_bytes(self) -> int:
        """How much memory the stores take now."""
        return sum(reader.store_bytes for reader in self._readers())

    def _readers(self) -> list[Reader]:
        return [self._main, *self._further]

    def _used(self) -> list[Reader]:
        """The further readers that running requests read with, in the order of the requests."""
        readers: dict[Reader, None] = {}
        for request in self.scheduler.running:
            if request.task.decoding.readers:
                readers |= dict.fromkeys(request.task.decoding.readers)
        return list(readers)

    def _waits_for_drafts(self) -> bool:
        """Whether the model's pass is put off until the drafts of all requests are ready to be verified in it.

        A pass over many drafts costs little more than over one. Where somebody waits who does not draft, it is not.
        """
        ends, prompts = self.scheduler.pending()
        drafting = any(pending.read.sequence.home is not self._main for pending in ends)
        return drafting and all(pending.request.task.decoding.readers for pending in (*ends, *prompts))

    def _pass(self, reader: Reader, among_others: bool) -> None:
        """What a reader does in a step."""
        ends, prompts = self.scheduler.pending()
        if among_others:
            ends = [pending for pending in ends if pending.read.sequence.home is reader]
            prompts = [pending for pending in prompts if pending.read.sequence.home is reader]
        shares = reader.shares(self.scheduler, ends, prompts)
        if shares:
            self._serve(reader, shares)

    def _span(self, prompt: int, decoding: Decoding) -> int:
        """The longest that a sequence of the request becomes."""
        whole = prompt + decoding.stopping.max_new_tokens
        return min(whole, decoding.context) if decoding.context else whole

    def _pages_needed(self, prompt: int, decoding: Decoding) -> int:
        """The most pages that the request holds at once, with the shadows of its sequences."""
        pages = self._pages_of_branches(prompt, decoding)
        return pages + (self._pages_of_branches(decoding.shadow, decoding) if decoding.shadow else 0)

    def _pages_of_branches(self, prompt: int, decoding: Decoding) -> int:
        """The most pages of as many sequences as there are branches: they share whole pages of the prompt."""
        span = self._span(prompt, decoding)
        if decoding.own_tokens:  # so many may begin in the middle of a page
            return self.pool.pages_for(span) + (decoding.branches - 1) * (
                1 + self.pool.pages_for(decoding.own_tokens - 1)
            )
        shared = min(prompt, span) // self.pool.page_size if decoding.branches > 1 else 0
        copied = 1 if decoding.branches > 1 else 0  # a page and its copy, for the moment of copying
        return shared + decoding.branches * (self.pool.pages_for(span) - shared) + copied

    def _open(self, request: Request, reader: Reader | None, prompt: int | None) -> Sequence:
        length = len(request.task.prompt) if prompt is None else prompt
        return (reader or self._main).open(request, self._span(length, request.task.decoding))

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

    def _serve(self, reader: Reader, shares: list[Share]) -> None:
        try:
            forward = reader.run(shares)
            self.steps += 1
            deliver(shares, forward, reader.backend)
            self._resume(list(dict.fromkeys([share.pending.request for share in shares])))
        except BaseException as error:  # what broke the pass breaks the requests that were in it, and no others
            for share in shares:
                if not share.pending.request.done:
                    share.pending.request.fail(error)
            if not isinstance(error, Exception):
                raise  # an interrupt is for the thread that it reached

    def _resume(self, requests: list[Request]) -> None:
        """Let the strategies go on that have their answers, until all of them wait for reads."""
        company = len(self.scheduler.running)
        while requests:
            for request in requests:
                if not request.done:
                    request.task.company = company
                    request.answer()
            requests = [request for request in requests if request.selections]
            if requests:
                select([asked for request in requests for asked in request.selections])


def _clear(home: object, pages: list[int]) -> None:
    if isinstance(home, Reader):
        home.clear(pages)
