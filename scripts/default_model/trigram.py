"""A 3-gram model with interpolated Kneser-Ney smoothing: what the default model must beat; works on any symbols.

Kneser and Ney (1995), as interpolated by Chen and Goodman (1998, section 4.1), one discount per order:
p(w|uv) = max(c(uvw) - D, 0) / c(uv) + D N(uv.) / c(uv) p(w|v), where the lower orders count distinct predecessors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order by code, and their contexts."""

    grams: Integers
    counts: Integers
    contexts: Integers
    totals: Reals  # counts of a context's n-grams, summed
    kinds: Reals  # how many different symbols follow a context
    discount: float

    def probability(self, codes: Integers, size: int, lower: Reals) -> Reals:
        """The probability of each n-gram's last symbol, given that of the next lower order."""
        counts = _find(self.grams, self.counts, codes)
        totals, kinds = (_find(self.contexts, values, codes // size) for values in (self.totals, self.kinds))
        known = totals > 0
        totals = np.where(known, totals, 1.0)
        smoothed = (np.maximum(counts - self.discount, 0.0) + self.discount * kinds * lower) / totals
        return np.where(known, smoothed, lower)


class Trigram:
    """Counts of a sequence of symbols 0 to `size` - 1."""

    def __init__(self, symbols: NDArray[np.generic], size: int) -> None:
        self.size = size
        threes, counts = np.unique(_codes(symbols, 3, size), return_counts=True)
        twos, before_two = np.unique(threes % size**2, return_counts=True)
        ones, before_one = np.unique(twos % size, return_counts=True)
        self._orders = [_order(ones, before_one, size), _order(twos, before_two, size), _order(threes, counts, size)]

    def bits(self, symbols: NDArray[np.generic]) -> float:
        """What it costs to tell all but the first two of `symbols`."""
        codes = _codes(symbols, 3, self.size)
        probability = np.full(len(codes), 1 / self.size)
        for length, order in enumerate(self._orders, start=1):
            probability = order.probability(codes % self.size**length, self.size, probability)
        return float(-np.log2(probability).sum())


def _codes(symbols: NDArray[np.generic], length: int, size: int) -> Integers:
    """Each n-gram of a sequence as one number, the last symbol in the lowest place."""
    wide = symbols.astype(np.int64)
    codes = np.zeros(len(wide) - length + 1, np.int64)
    for place in range(length):
        codes = codes * size + wide[place : place + len(codes)]
    return codes


def _order(grams: Integers, counts: Integers, size: int) -> _Order:
    contexts, context_of, kinds = np.unique(grams // size, return_inverse=True, return_counts=True)
    totals = np.bincount(context_of, weights=counts).astype(float)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return _Order(grams, counts, contexts, totals, kinds.astype(float), once / (once + 2 * twice) if once else 0.5)


def _find(keys: Integers, values: NDArray[np.generic], wanted: Integers) -> Reals:
    """The values of the wanted keys (sorted keys), 0 for those unknown."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0).astype(float)
