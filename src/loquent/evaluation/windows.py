"""Windows: how a document that is longer than what a model reads at once is cut, so that each token is scored once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loquent.errors import ArgumentError

LONGEST = 2048
"""How many tokens a window has unless somebody says, where the model's positions allow as many."""


class Window(NamedTuple):
    """Tokens `first` to `stop` of a document, of which those from `scored` on are scored."""

    first: int
    scored: int
    stop: int


def windows(tokens: int, length: int, stride: int) -> Iterator[Window]:
    """The windows of a document of so many tokens, whose first token is never scored.

    A model reads at most `length` tokens of a window: the last one, which nothing follows, is not read. The first
    window scores all it can; each further one moves on by `stride` tokens and scores those, behind at least
    `length - stride + 1` others.
    """
    scored, stop = 1, min(tokens, length + 1)
    while scored < tokens:
        yield Window(max(0, stop - length - 1), scored, stop)
        scored, stop = stop, min(tokens, stop + stride)


def sizes(positions: int | None, length: int | None, stride: int | None) -> tuple[int, int]:
    """The length and the stride that are meant, where the model has so many positions (None: any number).

    Raises:
        ArgumentError: they are too small, or too large.
    """
    most = LONGEST if positions is None else min(positions, LONGEST)
    length = most if length is None else length
    if length < 1 or (positions is not None and length > positions):
        has = "any number of" if positions is None else positions
        raise ArgumentError(f"length={length!r} must be at least 1, and at most the model's positions ({has}).")
    stride = max(1, length // 2) if stride is None else stride
    if not 1 <= stride <= length:
        raise ArgumentError(f"stride={stride!r} must be at least 1, and at most the length ({length}).")
    return length, stride
