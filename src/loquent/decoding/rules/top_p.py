"""Top-p: the best tokens whose probabilities reach p together remain (Holtzman et al., 2020, arXiv:1904.09751).

A token stays if those strictly better than it have less than p; tokens equal to the last that stays, stay with it, so
that the order in which a library sorts equal scores does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, namespace
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class TopP(Rule):
    """Keeps the smallest set of best tokens with at least probability `mass`."""

    mass: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopP], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        ordered = xp.sort(scores, axis=-1, descending=True)  # (rows, vocabulary)
        weights = xp.exp(ordered - ordered[:, :1])
        before = xp.cumulative_sum(weights, axis=-1) - weights
        kept = before < column(scores, [rule.mass for rule in rules]) * xp.sum(weights, axis=-1, keepdims=True)
        last = xp.maximum(
            xp.sum(xp.astype(kept, xp.int64), axis=-1, keepdims=True) - 1, xp.zeros_like(kept[:, :1], dtype=xp.int64)
        )
        return xp.where(scores < xp.take_along_axis(ordered, last, axis=1), -xp.inf, scores)
