"""What a batch's columns held: which token in each row, or padding; ids alone, wherever keys and values are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PADDING = -1
"""Where a column of a row held no token."""

UNKNOWN = -2
"""A token that nobody can name: it came as an embedding, or at another position than its own."""


class Columns:
    """The ids of a padded batch, (rows, columns), which grows by columns; PADDING and UNKNOWN are below all ids."""

    def __init__(self, ids: NDArray[np.int64] | None = None) -> None:
        self._buffer = np.zeros((0, 0), np.int64) if ids is None else ids.astype(np.int64)
        self._length = self._buffer.shape[1]
        self._lengths: NDArray[np.int64] = self.seen.sum(1)

    @property
    def ids(self) -> NDArray[np.int64]:
        """(rows, columns); a view that is right until the next change."""
        return self._buffer[:, : self._length]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which columns held a token, (rows, columns)."""
        seen: NDArray[np.bool_] = self.ids != PADDING
        return seen

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self._buffer), self._length

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each row has, (rows,)."""
        return self._lengths

    @property
    def known(self) -> bool:
        """Whether every token can be named."""
        return not (self.ids == UNKNOWN).any()

    def rows(self) -> list[NDArray[np.int64]]:
        """The tokens of each row, without padding."""
        return [row[row != PADDING] for row in self.ids]

    def append(self, ids: NDArray[np.int64]) -> None:
        """Further columns follow, (rows, new ones); the first ones say how many rows there are."""
        rows, new = ids.shape
        if not self._length:
            self._buffer = np.zeros((rows, 0), np.int64)
            self._lengths = np.zeros(rows, np.int64)
        stop = self._length + new
        if stop > self._buffer.shape[1]:
            grown = np.full((rows, max(stop, 2 * self._length)), PADDING, np.int64)
            grown[:, : self._length] = self.ids
            self._buffer = grown
        self._buffer[:, self._length : stop] = ids
        self._length = stop
        self._lengths = self._lengths + (ids != PADDING).sum(1)

    def crop(self, length: int) -> None:
        """Forget all but the first `length` columns."""
        if length < self._length:
            self._length = length
            self._lengths = self.seen.sum(1)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; some may be repeated."""
        self._buffer, self._lengths = self._buffer[list(rows)], self._lengths[list(rows)]
