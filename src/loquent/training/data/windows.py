"""Long texts encoded in overlapping windows and spliced where both sides agree, so that no text is too long.

The library takes some 170 bytes for each character of a text that it encodes, and one core. Windows bound the first
and use all cores. What a tokenizer makes of a word depends only on what is near it: so the stretch that two windows
share is encoded alone too, and where it agrees with the window before from its end on, and with the window behind from
its beginning, there is a token at which to pass from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
# Characters of a window's own, and of its neighbours' on either side.
_OWN = 1 << 16
_CONTEXT = 1 << 9
# Tokens on either side of a splice that must be the same in both windows.
_AGREEING = 16


@dataclass(frozen=True)
class Window:
    """A part of a document with some of what is around it.

    whole: the document, which is there anyway.
    start, stop: the characters of it that are encoded.
    """

    whole: str
    start: int
    stop: int

    @property
    def text(self) -> str:
        """What is encoded."""
        return self.whole[self.start : self.stop]

    @property
    def shared(self) -> str:
        """What the next window begins with; empty where there is none."""
        return "" if self.stop == len(self.whole) else self.whole[self.stop - 2 * _CONTEXT : self.stop]


def windows_of(texts: Iterable[str]) -> Iterator[Window]:
    """The windows of each text in order; a short text is a window."""
    for text in texts:
        last = max(1, len(text) // _OWN) - 1
        for number in range(last + 1):
            start = max(0, number * _OWN - _CONTEXT)
            yield Window(text, start, len(text) if number == last else (number + 1) * _OWN + _CONTEXT)


@dataclass
class Splicer:
    """Joins the ids of a document's windows, given one after another.

    encode: encodes a whole document, for one whose windows do not agree.
    """

    encode: Callable[[str], Ids]
    _done: list[Ids] = field(default_factory=list)
    # The window before, less what is done of it; and the stretch that it shares with the next.
    _rest: Ids | None = None
    _shared: Ids | None = None
    _failed: bool = False

    def add(self, window: Window, ids: Ids, shared: Ids) -> Ids | None:
        """The ids of the document where this window is its last; None before.

        Args:
            window: the next one.
            ids: what its text gives, without special tokens around it.
            shared: what the stretch gives that it shares with the next.
        """
        if self._rest is not None and self._shared is not None:
            place = _splice(self._rest, self._shared, ids)
            if place is None:
                self._failed = True
            else:
                self._done.append(self._rest[: len(self._rest) - len(self._shared) + place])
                ids = ids[place:]
        if window.shared:
            self._rest, self._shared = ids, shared
            return None
        whole = self.encode(window.whole) if self._failed else np.concatenate([*self._done, ids])
        self._done, self._rest, self._shared, self._failed = [], None, None, False
        return whole


def _splice(before: Ids, shared: Ids, behind: Ids) -> int | None:
    """The token of the shared stretch at which to pass from the window before to the one behind."""
    first = len(shared) - _common(before[::-1], shared[::-1]) + _AGREEING
    last = _common(behind, shared) - _AGREEING
    return (first + last) // 2 if first <= last else None


def _common(one: Ids, other: Ids) -> int:
    """How many tokens two rows have in common at the beginning."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
