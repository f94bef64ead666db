"""Temperature: scores / temperature; above 1 flattens the distribution, below 1 sharpens it (Ackley et al., 1985)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class Temperature(Rule):
    """Divides the scores by `value`, which is positive."""

    value: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Temperature], contexts: Sequence[Context]) -> Array:
        return scores / column(scores, [rule.value for rule in rules])

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.temperature = self.value
        return True
