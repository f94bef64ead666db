"""Top-p: the best tokens whose probabilities reach p together remain (Holtzman et al., 2020, arXiv:1904.09751).

A token stays if those strictly better than it have less than p; tokens equal to the last that stays, stay with it, so
that the order in which a library sorts equal scores does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, namespace, nth_best
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.mass import least_key


@dataclass(frozen=True)
class TopP(Rule):
    """Keeps the smallest set of best tokens with at least probability `mass`, and at least `keep` of them."""

    mass: float
    keep: int = 1

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopP], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        highest = xp.max(scores, axis=-1, keepdims=True)
        total = xp.sum(xp.exp(scores - highest), axis=-1, keepdims=True)
        least = least_key(scores, column(scores, [rule.mass for rule in rules]) * total)
        if any(rule.keep > 1 for rule in rules):
            least = xp.minimum(least, nth_best(scores, [rule.keep for rule in rules]))
        return xp.where(scores < least, -xp.inf, scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.top_p = self.mass
        return self.keep == 1
