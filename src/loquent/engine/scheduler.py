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
    """What a step does for one read: its next `count` tokens, of which the first `again` were read before."""

    pending: PendingRead
    count: int
    again: int
    rows: int  # how many of the last of them want a row
    scored: int  # of how many of those the logits are wanted
    last: bool  # whether the read is complete with them


class Scheduler:
    """Requests in the order of their arrival: admitted when there is room for them, then given tokens of every step.

    A step first serves the reads that finish within it (the next tokens of running requests), then long prompts,
    chunk by chunk, within `step_tokens` tokens in all.
    """

    def __init__(self, step_tokens: int, max_running: int) -> None:
        self.step_tokens, self.max_running = step_tokens, max_running
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

    def admit(self, has_room: Callable[[Request], bool]) -> list[Request]:
        """The requests that start or go on now: the first ones waiting, as far as there is room."""
        admitted: list[Request] = []
        while self.waiting and len(self.running) < self.max_running and has_room(self.waiting[0]):
            request = self.waiting.popleft()
            self.running.append(request)
            admitted.append(request)
        return admitted

    def suspend(self, request: Request) -> None:
        """A running request waits again, before all that have not begun."""
        self.running.remove(request)
        self.waiting.appendleft(request)

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
                left, sequence = read.left, read.read.sequence
                if (left == 1 or (0 < left <= _FEW and len(sequence))) and not sequence.missing:
                    ends.append(read)
                elif left:
                    prompts.append(read)
        return ends, prompts

    def shares(self, ends: list[PendingRead], prompts: list[PendingRead], incremental: bool) -> list[Share]:
        """The next step's work; where tokens cannot be read in parts (`incremental` false), whole reads only."""
        if not incremental:
            return [_share(read, read.left, 0) for read in (*ends, *prompts)]
        shares: list[Share] = []
        budget = self.step_tokens
        for read in (*ends, *prompts):
            if not budget:
                break
            if read.waits_for is None:
                missing = read.read.sequence.missing  # 0, mostly
                count = 1 if read.left == 1 and not missing else min(missing + read.left, budget)  # 1, mostly
                shares.append(_share(read, count, missing))
                budget -= count
        return shares


def _share(pending: PendingRead, count: int, missing: int) -> Share:
    left = missing + pending.left - count
    if not left and count == 1:  # mostly
        return Share(pending, 1, 0, 1, 1 if pending.scored else 0, True)
    again = min(count, missing)
    rows, scored = _of_last(count - again, pending.rows - left), _of_last(count - again, pending.scored - left)
    return Share(pending, count, again, rows, scored, not left)


def _of_last(count: int, wanted: int) -> int:
    return max(0, min(count, wanted))
