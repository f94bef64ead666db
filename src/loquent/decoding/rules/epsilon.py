"""Epsilon sampling: tokens less probable than epsilon go; the best stays (Hewitt et al., 2022, arXiv:2210.15191)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, log_softmax, namespace, nth_best
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class Epsilon(Rule):
    """Keeps the tokens with at least probability `cutoff`, and at least the `keep` best."""

    cutoff: float
    keep: int = 1

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Epsilon], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        unlikely = xp.exp(log_softmax(scores)) < column(scores, [rule.cutoff for rule in rules])
        return xp.where(unlikely & (scores < nth_best(scores, [rule.keep for rule in rules])), -xp.inf, scores)
