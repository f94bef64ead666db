"""Typical sampling: the tokens whose information is nearest to the expected one stay (Meister et al., 2022).

|-log p(x) - H(p)| smallest first, until their probabilities reach the mass        arXiv:2202.00666
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, log_softmax, namespace, nth_best
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.mass import least_key


@dataclass(frozen=True)
class Typical(Rule):
    """Keeps the most typical tokens that have probability `mass` together, and at least `keep` of them."""

    mass: float
    keep: int = 1

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Typical], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        logs = log_softmax(scores)
        weights = xp.exp(logs)
        entropy = -xp.sum(weights * xp.where(weights > 0, logs, 0.0), axis=-1, keepdims=True)
        keys = -xp.abs(logs + entropy)
        least = least_key(keys, column(scores, [rule.mass for rule in rules]), weights)
        if any(rule.keep > 1 for rule in rules):
            least = xp.minimum(least, nth_best(keys, [rule.keep for rule in rules]))
        return xp.where(keys < least, -xp.inf, scores)
