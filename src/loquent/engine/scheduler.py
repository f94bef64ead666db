"""The scheduler: which requests run, and which tokens of their reads fit into the next step; it runs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from loquent.engine.request import PendingRead, Request

_FEW = 32
"""Tokens that end a read as a running request's next token does: drafts to verify, or those that a draft has missed."""


@dataclass(eq=False, slots=True)
class Share:
    """What a step does for one read: its next `count` tokens."""

    pending: PendingRead
    count: int
    rows: int  # how many of the last of them want a row
    scored: int  # of how many of those the logits are wanted
    last: bool  # whether the read is complete with them


class Scheduler:
    """Requests in the order of their arrival: admitted when their pages are sure, then given tokens of every step.

    A step first serves the reads that finish within it (the next tokens of running requests), then long prompts,
    chunk by chunk, within `step_tokens` tokens in all.
    """

    def __init__(self, step_tokens: int, max_running: int, pages: int | None) -> None:
        self.step_tokens, self.max_running, self.pages = step_tokens, max_running, pages
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.timed: list[Request] = []  # those with a deadline

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)
        if request.task.decoding.deadline is not None:
            self.timed.append(request)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def expire(self, clock: Callable[[], float]) -> None:
        """End the requests whose deadline has passed, with what is there, unless the next step brings them a token."""
        if not self.timed:
            return
        now = clock()
        for request in self.timed:
            if not request.done and now >= (request.task.decoding.deadline or now) and not request.is_near:
                request.expire()
        self.timed = [request for request in self.timed if not request.done]
        self.waiting = deque(request for request in self.waiting if not request.done)
        self.retire()

    def admit(self) -> list[Request]:
        """The requests that start now: the first ones waiting, as far as the pages promised to all allow."""
        admitted: list[Request] = []
        if not self.waiting:
            return admitted
        promised = sum(request.pages for request in self.running)
        while self.waiting and len(self.running) < self.max_running:
            if self.pages is not None and promised + self.waiting[0].pages > self.pages:
                break
            request = self.waiting.popleft()
            promised += request.pages
            self.running.append(request)
            admitted.append(request)
        return admitted

    def retire(self) -> None:
        """Forget the requests that are done."""
        for request in self.running:
            if request.done:
                self.running = [request for request in self.running if not request.done]
                return

    def pending(self) -> tuple[list[PendingRead], list[PendingRead]]:
        """The reads that running requests wait for: those that are about to end, and the others, prompts."""
        ends: list[PendingRead] = []
        prompts: list[PendingRead] = []
        for request in self.running:
            for read in request.reads:
                if read.left == 1 or (0 < read.left <= _FEW and len(read.read.sequence)):
                    ends.append(read)
                elif read.left:
                    prompts.append(read)
        return ends, prompts

    def shares(self, ends: list[PendingRead], prompts: list[PendingRead], incremental: bool) -> list[Share]:
        """The next step's work; where tokens cannot be read in parts (`incremental` false), whole reads only."""
        if not incremental:
            return [_share(read, read.left) for read in (*ends, *prompts)]
        shares: list[Share] = []
        budget = self.step_tokens
        for read in (*ends, *prompts):
            if not budget:
                break
            if read.waits_for is None:
                count = 1 if read.left == 1 else min(read.left, budget)  # 1, mostly
                shares.append(_share(read, count))
                budget -= count
        return shares


def _share(pending: PendingRead, count: int) -> Share:
    left = pending.left - count
    if not left and count == 1:  # mostly
        return Share(pending, 1, 1, 1 if pending.scored else 0, True)
    return Share(pending, count, _of_last(count, pending.rows - left), _of_last(count, pending.scored - left), not left)


def _of_last(count: int, wanted: int) -> int:
    return max(0, min(count, wanted))
