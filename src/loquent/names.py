"""Reversible tables from a checkpoint's tensor names to canonical ones; data only, it neither reads nor writes files.

A table is a tuple of `Piece`s. Each says which rows of one canonical tensor a checkpoint tensor fills, and how the two
are laid out, so that the same table loads (`layout.to_ours`) and saves (`layout.to_theirs`), tensor by tensor and
without a second copy of the model. The arrays may be numpy's or torch's: layouts use only what both have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

Shape = tuple[int, ...]


class Layout(Protocol):
    """How a checkpoint lays out what one run of rows of a canonical tensor holds."""

    def to_ours(self, theirs: Any) -> Any:
        """The checkpoint's array as canonical rows."""

    def to_theirs(self, ours: Any) -> Any:
        """The canonical rows as the checkpoint's array: the inverse of `to_ours`."""

    def shape_of_theirs(self, ours: Shape) -> Shape:
        """The shape that the checkpoint's tensor must have for canonical rows of shape `ours`."""


@dataclass(frozen=True)
class Same:
    """The checkpoint stores the rows as they are."""

    def to_ours(self, theirs: Any) -> Any:
        return theirs

    def to_theirs(self, ours: Any) -> Any:
        return ours

    def shape_of_theirs(self, ours: Shape) -> Shape:
        return ours


@dataclass(frozen=True)
class Transposed:
    """The checkpoint stores matrices as (inputs, outputs), as GPT-2's Conv1D does; vectors are stored as they are."""

    def to_ours(self, theirs: Any) -> Any:
        return theirs.T if theirs.ndim == 2 else theirs

    def to_theirs(self, ours: Any) -> Any:
        return ours.T if ours.ndim == 2 else ours

    def shape_of_theirs(self, ours: Shape) -> Shape:
        return ours[::-1]


@dataclass(frozen=True)
class PerHead:
    """The checkpoint interleaves `parts` head by head ([q | k | v] of head 0, then of 1); ours stacks whole parts."""

    heads: int
    parts: int = 3

    def to_ours(self, theirs: Any) -> Any:
        return self._swapped(theirs, self.heads, self.parts)

    def to_theirs(self, ours: Any) -> Any:
        return self._swapped(ours, self.parts, self.heads)

    def shape_of_theirs(self, ours: Shape) -> Shape:
        return ours

    @staticmethod
    def _swapped(array: Any, outer: int, inner: int) -> Any:
        rows, rest = array.shape[0], tuple(array.shape[1:])
        split = array.reshape((outer, inner, rows // (outer * inner), *rest))
        return split.swapaxes(0, 1).reshape((rows, *rest))


@dataclass(frozen=True)
class Piece:
    """One checkpoint tensor and what it fills: all of the canonical tensor `ours`, or its rows start to stop."""

    theirs: str
    ours: str
    rows: tuple[int, int] | None = None
    layout: Layout = field(default_factory=Same)

    def shape_of_theirs(self, ours: Shape) -> Shape:
        """The checkpoint tensor's shape, from the whole canonical tensor's."""
        rows = ours if self.rows is None else (self.rows[1] - self.rows[0], *ours[1:])
        return self.layout.shape_of_theirs(rows)


@dataclass(frozen=True)
class NameTable:
    """A family's pieces, and the patterns of checkpoint tensors that hold nothing to load (buffers of old versions)."""

    pieces: tuple[Piece, ...]
    dropped: tuple[str, ...] = ()

    def drops(self, name: str) -> bool:
        """Whether a checkpoint tensor of this name is to be ignored."""
        return any(re.fullmatch(pattern, name) for pattern in self.dropped)


def linear(theirs: str, ours: str, *, bias: bool, layout: Layout | None = None) -> Iterator[Piece]:
    """The pieces of a linear layer stored whole."""
    for kind in ("weight", "bias")[: 1 + bias]:
        yield Piece(f"{theirs}.{kind}", f"{ours}.{kind}", layout=layout or Same())


def stacked(theirs: Iterable[tuple[str, int]], ours: str, *, bias: bool) -> Iterator[Piece]:
    """The pieces of a linear layer whose rows the checkpoint keeps in several: (name, number of rows) in order."""
    start = 0
    for name, rows in theirs:
        for kind in ("weight", "bias")[: 1 + bias]:
            yield Piece(f"{name}.{kind}", f"{ours}.{kind}", rows=(start, start + rows))
        start += rows
