"""The scheduler: which requests run, and which tokens of their reads fit into the next step; it runs nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.engine.request import PendingRead, Request


@dataclass(frozen=True, eq=False)
class Share:
    """What a step does for one read: these tokens of it, starting at `start` of its sequence."""

    pending: PendingRead
    tokens: NDArray[np.int64]  # (n,)
    rows: int  # how many of the last of them want a row
    last: bool  # whether the read is complete with them


class Scheduler:
    """Requests in the order of their arrival: admitted when their pages are sure, then given tokens of every step.

    A step first serves the reads that finish within it (the next token of running requests), then long prompts,
    chunk by chunk, within `step_tokens` tokens in all.
    """

    def __init__(self, step_tokens: int, max_running: int, pages: int | None) -> None:
        self.step_tokens, self.max_running, self.pages = step_tokens, max_running, pages
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.running

    def admit(self) -> list[Request]:
        """The requests that start now: the first ones waiting, as far as the pages promised to all allow."""
        admitted = []
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
        if any(request.done for request in self.running):
            self.running = [request for request in self.running if not request.done]

    def pending(self) -> list[PendingRead]:
        """The reads that running requests wait for."""
        return [read for request in self.running for read in request.reads if not read.done]

    def shares(self, incremental: bool) -> list[Share]:
        """The next step's work; where tokens cannot be read in parts (`incremental` false), whole reads only."""
        pending = [read for read in self.pending() if not read.held]
        if not incremental:
            return [_share(read, read.left) for read in pending]
        budget, shares = self.step_tokens, []
        for read in sorted(pending, key=lambda read: read.left > 1):  # stable: next tokens, then prompts in order
            count = min(read.left, budget)
            if count:
                shares.append(_share(read, count))
                budget -= count
        return shares


def _share(pending: PendingRead, count: int) -> Share:
    stop = pending.fed + count
    rows = max(0, stop - max(pending.fed, pending.first_row))
    return Share(pending, pending.read.tokens[pending.fed : stop], rows, stop == len(pending.read.tokens))
