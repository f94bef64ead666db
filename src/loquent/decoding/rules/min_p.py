"""Min-p: tokens below a fraction of the best token's probability go (Nguyen et al., 2024, arXiv:2407.01082)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, namespace, nth_best
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class MinP(Rule):
    """Keeps the tokens with at least `fraction` (0 to 1) of the best one's probability, and the `keep` best."""

    fraction: float
    keep: int = 1

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[MinP], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        floors = [math.log(rule.fraction) if rule.fraction else -math.inf for rule in rules]
        least = xp.max(scores, axis=-1, keepdims=True) + column(scores, floors)
        if any(rule.keep > 1 for rule in rules):
            least = xp.minimum(least, nth_best(scores, [rule.keep for rule in rules]))
        return xp.where(scores < least, -xp.inf, scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.min_p = self.fraction
        return self.keep == 1
