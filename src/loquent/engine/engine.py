"""The engine: requests come and go at any step, and each step schedules, runs one forward pass, and delivers."""

from __future__ import annotations

import time
from collections.abc import Sequence as Items
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PLAIN, Budget, PageSpace, Sequence, StoreKind
from loquent.decoding.recording import Recording
from loquent.decoding.task import Decoding, Task
from loquent.engine.backend import Backend
from loquent.engine.bounds import longest_span
from loquent.engine.choosing import Chooser
from loquent.engine.delivery import deliver, select
from loquent.engine.fair_lock import FairLock
from loquent.engine.holdings import HeldPages, Holdings
from loquent.engine.prompt_cache import PromptCache
from loquent.engine.reader import Reader, StoreMemory
from loquent.engine.request import Handle, Request
from loquent.engine.room import Room
from loquent.engine.scheduler import Scheduler, Share


class Engine:
    """Runs any mix of requests over one model, all of their reads in shared forward passes.

    Whoever waits for a request calls `step()` until it is done; several threads may, and each step serves them all.

    Args:
        backend: the model.
        page_size: tokens per page of the KV store.
        kv_memory: how many bytes of keys and values its stores may hold in memory (None: as many as requests need).
        step_tokens: how many tokens a step reads at most; longer prompts are read in chunks.
        max_running: how many requests run at once; the others wait their turn.
        reuse_prefixes: whether requests that share a beginning share its pages.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        page_size: int = 16,
        kv_memory: int | None = None,
        step_tokens: int = 2048,
        max_running: int = 256,
        reuse_prefixes: bool = True,
    ) -> None:
        self.page_size, self.reuse_prefixes = page_size, reuse_prefixes
        self._budget = Budget(kv_memory)
        self._main = Reader(backend, PLAIN, page_size, self._budget, reuse_prefixes)
        self._further: WeakSet[Reader] = WeakSet()  # they live as long as their owners and the requests that read
        self.scheduler = Scheduler(step_tokens, max_running)
        self._caches: WeakKeyDictionary[Request, PromptCache] = WeakKeyDictionary()  # of prompts that are not read yet
        self.lock = FairLock()
        self._steps_within = 0  # more than one where a caller's rule or criterion generates with the same model
        self._holdings = Holdings(self.lock)
        self.room = Room(self._main, self._further, self.scheduler, self._holdings)
        self._leaving: list[Request] = []  # cancelled within a step, which may still be working on them
        self._submitted = self.steps = 0

    @property
    def backend(self) -> Backend:
        """The model."""
        return self._main.backend

    @property
    def space(self) -> PageSpace:
        """Who holds which page of the model's own store."""
        return self._main.space

    @property
    def kv_memory(self) -> int | None:
        """How many bytes of keys and values its stores may hold in memory; None: as many as requests need."""
        return self._budget.limit

    @kv_memory.setter
    def kv_memory(self, limit: int | None) -> None:
        with self.lock:
            self._budget.limit = limit

    def memory(self) -> list[StoreMemory]:
        """What its stores take, by group of pages."""
        with self.lock:
            self._holdings.sweep()
            return [memory for reader in self._readers() for memory in reader.memory()]

    @property
    def main(self) -> Reader:
        """What requests read with whose keys and values are kept plainly."""
        return self._main

    def add_reader(self, backend: Backend, kind: StoreKind = PLAIN) -> Reader:
        """Let requests read with another model too, such as a draft, or keep what they read in another kind of store.

        It lasts as long as the caller or a running request holds it (`Decoding.readers`, `Decoding.home`).

        Raises:
            ArgumentError: a kind that the backend cannot have.
            MissingExtraError: a library that the kind needs is not installed.
        """
        with self.lock:
            reader = Reader(backend, kind, self.page_size, self._budget, self.reuse_prefixes)
            self._further.add(reader)
            return reader

    def hold(self, texts: Items[NDArray[np.int64]], handles: Items[Handle]) -> HeldPages:
        """The pages that remember these texts, for a cache: as long as it keeps them, and there is room for them.

        `handles` are of the requests that read the texts, all of them in the same store.
        """
        tasks = [handle.task for handle in handles]
        home = tasks[0].decoding.home or self._main
        salts = [home.backend.prefix_key(longest_span(len(task.prompt), task.decoding)) for task in tasks]
        with self.lock:
            self._holdings.sweep()
            return self._holdings.hold(home.space, texts, salts, home.backend.layers)

    def submit(
        self, prompt: Items[int] | NDArray[np.int64], decoding: Decoding, cache: PromptCache | None = None
    ) -> Handle:
        """Queue a request; it starts with one of the next steps.

        Args:
            prompt: the tokens that it begins with, (n,).
            decoding: what it asks for.
            cache: where pages of its prompt come from and go to.

        Raises:
            CapacityError: it cannot fit into the store even alone.
        """
        tokens = np.asarray(prompt, np.int64)
        home = decoding.home or self._main
        most_bytes = self.room.check(len(tokens), decoding)
        task = Task(tokens, decoding, open=lambda reader=None, prompt=None: self._open(request, reader, prompt))
        recording = Recording(decoding.recorded) if decoding.recorded else None
        # A backend that selects uses up the rows that are to be recorded.
        selects = any(reader.backend.selects for reader in (home, *decoding.readers))
        chooser = Chooser(task) if selects and recording is None else None
        request = Request(task, most_bytes, _clear, chooser, recording=recording)
        with self.lock:
            self._submitted += 1
            request.arrival = self._submitted
            if cache is not None:
                cache.restore()
                self._caches[request] = cache
            self.scheduler.add(request)
        return Handle(request, self._cancel)

    def step(self) -> bool:
        """One step of everything that runs. Returns whether anything is left to do."""
        with self.lock:
            self._steps_within += 1
            try:
                self._holdings.sweep()
                self.scheduler.expire(time.monotonic)
                for request in self.scheduler.admit(self.room.lets_in):
                    if request.strategy is None:
                        request.start()
                readers, drafts = self._used()
                if not drafts or not self._waits_for_drafts():
                    for reader in readers:
                        self._pass(reader, len(readers) + len(drafts) > 1)
                for reader in drafts:
                    self._pass(reader, True)
            finally:
                self._steps_within -= 1
                self._let_go()
            return not self.scheduler.idle

    def refresh(self) -> None:
        """Drop what is remembered for reuse if the weights have changed; to be called before requests are submitted."""
        with self.lock:
            self._holdings.sweep()
            readers = self._readers()
            # Each backend is asked once, whatever number of readers it has: it tells of a change but once.
            changed = {backend: backend.weights_changed() for backend in {reader.backend for reader in readers}}
            for reader in readers:
                if reader.refresh(changed[reader.backend], self.scheduler.idle):
                    self._holdings.forget(reader.space)

    def release_memory(self) -> None:
        """Give back the stores' memory that no running request holds, and no cache."""
        with self.lock:
            self._holdings.sweep()
            for reader in self._readers():
                reader.release_memory()

    @property
    def store_bytes(self) -> int:
        """How much memory the stores take now."""
        return sum(reader.store_bytes for reader in self._readers())

    def _readers(self) -> list[Reader]:
        return [self._main, *self._further]

    def _used(self) -> tuple[list[Reader], list[Reader]]:
        """What running requests read with, in their order: the model, with its stores, and further models."""
        homes: dict[Reader, None] = {}
        drafts: dict[Reader, None] = {}
        for request in self.scheduler.running:
            decoding = request.task.decoding
            if decoding.home is not None:
                homes[decoding.home] = None
            elif self._main not in homes:
                homes[self._main] = None
            if decoding.readers:
                drafts |= dict.fromkeys(decoding.readers)
        return list(homes), list(drafts)

    def _waits_for_drafts(self) -> bool:
        """Whether the model's pass is put off until the drafts of all requests are ready to be verified in it.

        A pass over many drafts costs little more than over one. Where somebody waits who does not draft, it is not.
        """
        ends, prompts = self.scheduler.pending()
        drafting = any(pending.read.sequence.home in pending.request.task.decoding.readers for pending in ends)
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

    def _open(self, request: Request, reader: Reader | None, prompt: int | None) -> Sequence:
        decoding = request.task.decoding
        length = len(request.task.prompt) if prompt is None else prompt
        return (reader or decoding.home or self._main).open(request, longest_span(length, decoding))

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
            shares, copies = self.room.prepare(reader, shares)
            if not shares:
                return
            forward = reader.run(shares, copies)
            self.steps += 1
            if self._caches:
                self._fill_caches(shares)
            deliver(shares, forward, reader.backend)
            self._resume(list(dict.fromkeys([share.pending.request for share in shares])))
        except BaseException as error:  # what broke the pass breaks the requests that were in it, and no others
            for share in shares:
                if not share.pending.request.done:
                    share.pending.request.fail(error)
            if not isinstance(error, Exception):
                raise  # an interrupt is for the thread that it reached

    def _fill_caches(self, shares: list[Share]) -> None:
        for share in shares:
            cache = self._caches.get(share.pending.request)
            if cache is not None and share.last and cache.take(share.pending.read.sequence):
                del self._caches[share.pending.request]

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


def _clear(home: object, pages: list[tuple[int, list[int]]]) -> None:
    if isinstance(home, Reader):
        home.clear(pages)
