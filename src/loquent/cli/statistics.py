"""How fast a model wrote: tokens, tokens per second, and the time to the first one."""

from __future__ import annotations

import time


class Statistics:
    """Counts tokens from its making on."""

    def __init__(self) -> None:
        self.tokens = 0
        self._start = time.perf_counter()
        self._first: float | None = None
        self._tokens_at_first = 0
        self._last = self._start

    def count(self, tokens: int) -> None:
        """So many tokens have come."""
        if not tokens:
            return
        self.tokens += tokens
        self._last = time.perf_counter()
        if self._first is None:
            self._first, self._tokens_at_first = self._last, self.tokens

    @property
    def seconds_to_first(self) -> float | None:
        """From the beginning to the first token; None where there is none."""
        return None if self._first is None else self._first - self._start

    @property
    def tokens_per_second(self) -> float | None:
        """Behind the first step; None where nothing followed it."""
        if self._first is None or self._last == self._first:
            return None
        return (self.tokens - self._tokens_at_first) / (self._last - self._first)

    def __str__(self) -> str:
        parts = [f"{self.tokens} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:.1f} tokens/s")
        if self.seconds_to_first is not None:
            parts.append(f"first after {self.seconds_to_first:.2f} s")
        return ", ".join(parts)
