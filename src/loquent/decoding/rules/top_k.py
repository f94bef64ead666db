"""Top-k: only the k best tokens remain (Fan et al., 2018, arXiv:1805.04833); those equal to the k-th stay with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, namespace, nth_best
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class TopK(Rule):
    """Keeps the `count` best tokens."""

    count: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopK], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        return xp.where(scores < nth_best(scores, [rule.count for rule in rules]), -xp.inf, scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.top_k = self.count
        return True
