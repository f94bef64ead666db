"""Room for keys and values: which requests it lets in, and which give way where it is short."""

from __future__ import annotations

from weakref import WeakSet

from loquent.cache import PageCopy
from loquent.decoding.task import Decoding
from loquent.engine.bounds import MostPages, longest_span
from loquent.engine.holdings import Holdings
from loquent.engine.reader import Reader
from loquent.engine.request import Request
from loquent.engine.scheduler import Scheduler, Share
from loquent.errors import CapacityError
from loquent.sizes import shown_size


class Room:
    """Gives an engine's requests their pages, within the budget of its stores.

    A request is let in where its prompt fits beside what is held. Where a step finds no page, what is free in any store
    is taken back, and what is held for caches; then the newest request that has pages gives all of them back, waits,
    and reads its text again when it goes on.

    Args:
        main: the reader of requests that do not say another one.
        further: the engine's others.
        scheduler: who runs and who waits.
        holdings: what is held for caches.
    """

    def __init__(self, main: Reader, further: WeakSet[Reader], scheduler: Scheduler, holdings: Holdings) -> None:
        self._main, self._further, self._scheduler, self._holdings = main, further, scheduler, holdings
        self._alone: Request | None = None  # the last that had to give way to itself

    def most_bytes(self, prompt: int, decoding: Decoding) -> int:
        """The most that a request holds at once, its drafts included, where its own store counts."""
        home, step_tokens = self._home(decoding), self._scheduler.step_tokens
        most = MostPages(home.space, step_tokens).bytes(prompt, decoding)
        for reader in decoding.readers:
            if reader.space.budget is home.space.budget:
                most += MostPages(reader.space, step_tokens).of_sequence(longest_span(prompt, decoding))
        return most

    def check(self, prompt: int, decoding: Decoding) -> int:
        """`most_bytes`, where there could be so many.

        Raises:
            CapacityError: the request could not run even alone.
        """
        most, limit = self.most_bytes(prompt, decoding), self._home(decoding).space.budget.limit
        if limit is not None and most > limit:
            raise CapacityError(
                f"The request may need {shown_size(most)} of keys and values ({prompt} tokens of prompt, "
                f"{decoding.stopping.max_new_tokens} new, in {decoding.branches} sequences), and kv_memory is "
                f"{shown_size(limit)}. Ask for fewer tokens, raise kv_memory, or keep them in fewer bits or in a file: "
                'cache_implementation="quantized" or "offloaded".'
            )
        return most

    def lets_in(self, request: Request) -> bool:
        """Whether a waiting request may start, or go on.

        Those that run may still grow and take its pages away. Where pages cannot be taken away, all that it may ever
        hold is set aside for it.
        """
        running, budget = self._scheduler.running, self._home(request.task.decoding).space.budget
        if budget.limit is not None and running:
            if not self._may_evict():
                if sum(other.most_bytes for other in running) + request.most_bytes > budget.limit:
                    return False
            else:
                unread = sum(self._unread_bytes(other) for other in (*running, request))
                if self._held_beside(unread) > budget.limit and not (
                    self._holdings.give_way() and self._held_beside(unread) <= budget.limit
                ):
                    return False
        self._alone = self._alone if request is self._alone else None
        return True

    def prepare(self, reader: Reader, shares: list[Share]) -> tuple[list[Share], list[list[PageCopy]]]:
        """Make room for a step's shares; those of requests that give way are left out.

        Returns the others, and what must be copied for each of them before it runs.
        """
        ready: list[Share] = []
        copies: list[list[PageCopy]] = []
        gone: set[Request] = set()
        for share in shares:
            if gone and share.pending.request in gone:
                continue
            try:
                copies.append(reader.prepare(share))
            except CapacityError:
                found, gave_way = self._find(reader, share)
                gone |= gave_way
                if found is None:
                    continue
                copies.append(found)
            ready.append(share)
        if gone:
            kept = [index for index, share in enumerate(ready) if share.pending.request not in gone]
            ready, copies = [ready[index] for index in kept], [copies[index] for index in kept]
        return ready, copies

    def _readers(self) -> list[Reader]:
        return [self._main, *self._further]

    def _home(self, decoding: Decoding) -> Reader:
        home: Reader = decoding.home or self._main
        return home

    def _may_evict(self) -> bool:
        return all(reader.recovers for reader in self._readers())

    def _held_beside(self, further: int) -> int:
        """What is held where the model's own store is counted, with so many bytes more."""
        budget = self._main.space.budget
        spaces = dict.fromkeys(reader.space for reader in self._readers() if reader.space.budget is budget)
        return sum(space.held_bytes for space in spaces) + further

    def _unread_bytes(self, request: Request) -> int:
        """About what its next reads take, and another page for each; of a request that has not begun, its prompt."""
        if request.strategy is None:
            unread: list[tuple[object, int]] = [(self._home(request.task.decoding), len(request.task.prompt))]
        else:
            unread = [(read.read.sequence.home, read.read.sequence.missing + read.left) for read in request.reads]
        budget, step_tokens = self._main.space.budget, self._scheduler.step_tokens
        return sum(
            MostPages(home.space, step_tokens).of_sequence(tokens + home.space.page_size)
            for home, tokens in unread
            if isinstance(home, Reader) and home.space.budget is budget
        )

    def _find(self, reader: Reader, share: Share) -> tuple[list[PageCopy] | None, set[Request]]:
        """Make room for a share where there was none; what `Reader.prepare` gives, and which requests gave way.

        None: its own request did.
        """
        gone: set[Request] = set()
        while share.pending.request not in gone:
            self._reclaim()
            try:
                return reader.prepare(share), gone
            except CapacityError as error:
                gone.add(self._give_way(reader, share.pending.request, error))
        return None, gone

    def _reclaim(self) -> None:
        """Take back what is free in any store, and what is held for caches."""
        self._holdings.give_way()
        for reader in self._readers():
            reader.reclaim()

    def _give_way(self, reader: Reader, asking: Request, error: CapacityError) -> Request:
        """Take the pages of the newest request that has any, which waits from now on, or fails; returns it.

        A request that has all there is, and finds no room, begins again with everything given back: other stores may
        have left their room in pieces. If that does not help, it fails.
        """
        holders = [request for request in self._scheduler.running if request is asking or _holds(request, reader)]
        newest = max(holders, key=lambda request: request.arrival)
        if not self._may_evict() or newest is self._alone:
            asking.fail(error)
            return asking
        for other in self._readers():
            other.leave(newest)
        newest.evict()
        self._scheduler.suspend(newest)
        if holders == [asking]:
            self._alone = asking
            for other in self._readers():
                other.space.forget_all()
            self._reclaim()
        return newest


def _holds(request: Request, reader: Reader) -> bool:
    """Whether it holds pages where the reader's store is counted."""
    homes = [sequence.home for sequence in request.sequences if sequence.stored]
    return any(isinstance(home, Reader) and home.space.budget is reader.space.budget for home in homes)
