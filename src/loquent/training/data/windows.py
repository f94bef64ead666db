"""Long texts encoded in overlapping windows and spliced where both sides agree, so that no text is too long.

The library takes some 170 bytes for each character of a text that it encodes, and one core. Windows bound the first
and use all cores. Where two windows overlap, tokens settle down to what the whole text would give: what a tokenizer
makes of a word depends on what is near it. A place where a stretch of tokens is the same in both is where to splice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
# Characters of a window's own, and of its neighbours' on either side.
_OWN = 1 << 16
_CONTEXT = 1 << 9
# Tokens on either side of a splice that must be the same in both windows.
_AGREEING = 16
# How far apart the places are at which a splice is tried, in characters, around the middle of the overlap.
_TRIES = [sign * step for step in range(0, _CONTEXT // 2, 7) for sign in ((1, -1) if step else (1,))]


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
    def is_last(self) -> bool:
        """Whether the document ends with it."""
        return self.stop == len(self.whole)


def windows_of(texts: Iterable[str]) -> Iterator[Window]:
    """The windows of each text in order; a short text is a window."""
    for text in texts:
        last = max(1, len(text) // _OWN)
        for number in range(last):
            start = max(0, number * _OWN - _CONTEXT)
            yield Window(text, start, len(text) if number == last - 1 else (number + 1) * _OWN + _CONTEXT)


class Splicer:
    """Joins the ids of a document's windows, given one after another.

    Args:
        encode: encodes a whole document, for one whose windows agree nowhere.
    """

    def __init__(self, encode: Callable[[str], Any]) -> None:
        self._encode = encode
        self._done: list[Ids] = []
        self._previous: _Read | None = None
        self._failed = False

    def add(self, window: Window, encoding: Any) -> Ids | None:
        """The ids of the document where this window is its last; None before.

        Args:
            window: the next one.
            encoding: its `tokenizers.Encoding`, without special tokens around it.
        """
        read = _Read(window, encoding, np.array(encoding.ids, np.int64))
        if window.start and not self._failed:
            self._failed = not self._splice(read)
        if not window.is_last:
            self._previous = read
            return None
        ids = np.concatenate([*self._done, read.ids[read.skipped :]])
        if self._failed:
            ids = np.array(self._encode(window.whole).ids, np.int64)
        self._done, self._previous, self._failed = [], None, False
        return ids

    def _splice(self, read: _Read) -> bool:
        previous = self._previous
        assert previous is not None
        middle = read.window.start + _CONTEXT
        for step in _TRIES:
            left, right = previous.token_at(middle + step), read.token_at(middle + step)
            if left and right and left[1] == right[1] and previous.near(left[0]) == read.near(right[0]):
                self._done.append(previous.ids[previous.skipped : left[0]])
                read.skipped = right[0]
                return True
        return False


@dataclass
class _Read:
    """A window with its ids, and how many of these belong to the window before."""

    window: Window
    encoding: Any
    ids: Ids
    skipped: int = 0

    def token_at(self, place: int) -> tuple[int, int] | None:
        """The token that covers a character of the document, and the character that it begins with."""
        token = self.encoding.char_to_token(place - self.window.start)
        if token is None:
            return None
        return token, self.encoding.token_to_chars(token)[0] + self.window.start

    def near(self, token: int) -> list[int]:
        """The ids around a token."""
        ids: list[int] = self.ids[max(0, token - _AGREEING) : token + _AGREEING].tolist()
        return ids
