"""Top-p: the best tokens whose probabilities reach p together remain (Holtzman et al., 2020, arXiv:1904.09751).

A token stays if those strictly better than it have less than p; tokens equal to the last that stays, stay with it, so
that the order in which a library sorts equal scores does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loquent.decoding.arrays import Array, beside, column, namespace, to_numpy, top
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule

# Sorting 50,000 scores takes 4 ms; the best 256, which are mostly all that is needed, are found in 0.1 ms.
_FEW = 256


@dataclass(frozen=True)
class TopP(Rule):
    """Keeps the smallest set of best tokens with at least probability `mass`."""

    mass: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopP], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        highest = xp.max(scores, axis=-1, keepdims=True)
        total = xp.sum(xp.exp(scores - highest), axis=-1, keepdims=True)
        least = _least(scores, highest, column(scores, [rule.mass for rule in rules]) * total, _FEW)
        return xp.where(scores < least, -xp.inf, scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.top_p = self.mass
        return True


def _least(scores: Array, highest: Array, wanted: Array, count: int) -> Array:
    """The lowest score that stays in each row, (rows, 1), where `wanted` is the sum of weights that is to be reached.

    Looks among the `count` best first, and where they do not reach it, among more.
    """
    xp, width = namespace(scores), scores.shape[1]
    ordered = top(scores, count)[0] if count < width else xp.sort(scores, axis=-1, descending=True)
    weights = xp.exp(ordered - highest)
    before = xp.cumulative_sum(weights, axis=-1) - weights
    kept = xp.sum(xp.astype(before < wanted, xp.int64), axis=-1, keepdims=True)
    least = xp.take_along_axis(ordered, xp.maximum(kept - 1, xp.zeros_like(kept)), axis=1)
    unsure = np.flatnonzero(to_numpy(kept)[:, 0] == count) if count < width else ()
    if len(unsure):
        rows = beside(scores, unsure)
        least[rows] = _least(scores[rows], highest[rows], wanted[rows], count * 16)
    return least
