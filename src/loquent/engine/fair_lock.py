"""A lock that threads get in the order in which they asked for it; it protects nothing by itself."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A re-entrant lock with a queue.

    Python's own locks let a thread that steps the engine in a loop take the lock again before one that waits for it
    has woken, until the loop ends.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[threading.Lock, int]] = deque()  # a gate that opens with the turn, and the thread
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        thread = threading.get_ident()
        if self._owner == thread:  # nobody else can change that
            self._depth += 1
            return
        with self._mutex:
            if self._owner is None:
                self._owner, self._depth = thread, 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append((gate, thread))
        try:
            gate.acquire()
        except BaseException:  # an interrupt: leave the queue, or pass on a turn that has just come
            with self._mutex:
                if self._owner == thread:
                    self._pass_on()
                else:
                    self._waiting.remove((gate, thread))
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._depth > 1:
            self._depth -= 1
            return
        with self._mutex:
            self._pass_on()

    def _pass_on(self) -> None:
        self._owner, self._depth = None, 0
        if self._waiting:
            gate, self._owner = self._waiting.popleft()
            self._depth = 1
            gate.release()
