"""Cuts documents into pieces that fit a row, and says what the loss counts in each; it places none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loquent.errors import ArgumentError
from loquent.training.data.examples import Bools, Examples, Ints, Tokens

# Tokens that are looked at together, so that what a look needs stays small.
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Pieces:
    """Spans of the tokens of some examples, in their order.

    The pieces of a document share the token at each border: the one before predicts it, the one behind it has it as
    context. So no prediction is lost. Pieces in which the loss counts nothing are left out.

    starts, stops: (pieces,) the first token of each, and the one behind its last.
    counted: (pieces,) how many predictions of each the loss counts.
    """

    starts: Ints
    stops: Ints
    counted: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Ints:
        """(pieces,) in tokens."""
        return self.stops - self.starts


def cut(examples: Examples, length: int, breaks: Bools | None = None, truncate: bool = False) -> Pieces:
    """Pieces of at most `length` tokens.

    Args:
        examples: the documents.
        length: in tokens, at least 2.
        breaks: for each id whether a piece may well end with it: where one is in the last quarter of a piece that
            must be cut, the piece ends with the last such token.
        truncate: keep a document's first piece only.

    Raises:
        ArgumentError: the length is too small, `breaks` does not cover the vocabulary, or the loss counts nothing.
    """
    if length < 2:
        raise ArgumentError(f"length={length} must be at least 2 tokens: one to read and one to predict.")
    ends = None if breaks is None else _places(examples.tokens, breaks)
    rounds = list(_rounds(examples.starts, length, ends))[: 1 if truncate else None]
    starts = np.concatenate([start for start, _ in rounds])
    stops = np.concatenate([stop for _, stop in rounds])
    by_place = np.argsort(starts, kind="stable")
    starts, stops = starts[by_place], stops[by_place]
    uncounted = np.flatnonzero(~examples.counted)
    # Of a piece, all tokens but its first are predicted.
    skipped = np.searchsorted(uncounted, stops) - np.searchsorted(uncounted, starts + 1)
    counted = stops - starts - 1 - skipped
    kept = counted > 0
    if not kept.any():
        raise ArgumentError(
            f"The loss counts no token of the {len(examples)} documents given: they have one token each, or hold "
            "no answers."
        )
    return Pieces(starts[kept], stops[kept], counted[kept])


def _rounds(starts: Ints, length: int, ends: Ints | None) -> Iterator[tuple[Ints, Ints]]:
    """The first pieces of all documents, the second pieces of those that have one, and so on."""
    begin, limit = starts[:-1], starts[1:]
    while len(begin):
        stop = np.minimum(begin + length, limit)
        cut = stop < limit
        if ends is not None:
            stop = np.where(cut, _at_breaks(begin, stop, length, ends), stop)
        yield begin, stop
        begin, limit = stop[cut] - 1, limit[cut]


def _at_breaks(begin: Ints, stop: Ints, length: int, ends: Ints) -> Ints:
    """Stops moved to behind the last break in the last quarter of each piece, where there is one."""
    before = np.searchsorted(ends, stop) - 1
    found = np.where(before >= 0, ends[before] + 1, 0) if len(ends) else np.zeros_like(stop)
    # A piece has two tokens at least, or the next one would begin where it began.
    return np.where((found > begin + length * 3 // 4) & (found > begin + 1), found, stop)


def _places(tokens: Tokens, breaks: Bools) -> Ints:
    """Where the tokens are that a piece may well end with."""
    largest = int(tokens.max())
    if largest >= len(breaks):
        raise ArgumentError(f"breaks has {len(breaks)} entries, and the documents have the id {largest}.")
    blocks = range(0, len(tokens), _BLOCK)
    return np.concatenate([np.flatnonzero(breaks[tokens[at : at + _BLOCK]]) + at for at in blocks])
