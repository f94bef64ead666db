"""Cuts a stop string, and what follows it, from text that comes in pieces; generation itself stops elsewhere."""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """Lets text through up to the first of `stops`; what may be the beginning of one waits for the next piece."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._waiting = ""
        self._cut = False

    def push(self, text: str) -> str:
        """What is sure to come before any stop string."""
        if self._cut:
            return ""
        text = self._waiting + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self._cut, self._waiting = True, ""
            return text[: min(found)]
        sure = len(text) - self._beginning_of_a_stop(text)
        self._waiting = text[sure:]
        return text[:sure]

    def flush(self) -> str:
        """The rest, at the end of the text."""
        rest, self._waiting = self._waiting, ""
        return rest

    def _beginning_of_a_stop(self, text: str) -> int:
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stops)), 0)
