"""Which packs each step reads: a function of the seed and the step, with no state that a checkpoint had to keep."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from loquent.errors import ArgumentError

_MASK = 2**64 - 1


@dataclass(frozen=True)
class Order:
    """Epochs of packs, each in an order of its own, one after another without dropping any.

    A step may read the end of one epoch and the beginning of the next. Processes share a step's packs.

    count: packs in an epoch.
    rows: packs that a step reads.
    seed: of the orders.

    Raises:
        ArgumentError: a number is out of range.
    """

    count: int
    rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("rows", 1)):
            if getattr(self, name) < least:
                raise ArgumentError(f"{name}={getattr(self, name)} must be at least {least}.")

    @property
    def steps_per_epoch(self) -> float:
        """How many steps an epoch takes; seldom a whole number."""
        return self.count / self.rows

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """(rows,) the packs that a step reads, counted from 0.

        Raises:
            ArgumentError: the step is negative.
        """
        if step < 0:
            raise ArgumentError(f"step={step} must be at least 0.")
        first = step * self.rows
        epochs, places = np.divmod(np.arange(first, first + self.rows, dtype=np.int64), self.count)
        batch = np.empty(self.rows, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            batch[here] = _epoch(self.count, self.seed, epoch)[places[here]]
        return batch


def permutation(count: int, seed: int, stream: int) -> npt.NDArray[np.int64]:
    """The numbers below `count` in an order that follows from the seed and the number of the stream.

    Sorted by Philox's raw output (Salmon et al., 2011), which is the same in every version of numpy; what
    `Generator.permutation` makes of it need not be.
    """
    key = np.array([seed & _MASK, stream & _MASK], np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


@lru_cache(maxsize=4)
def _epoch(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Kept for a few epochs, since every step asks for it."""
    order = permutation(count, seed, epoch)
    order.setflags(write=False)
    return order
