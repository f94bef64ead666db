"""Invalid values: scores that are no numbers become 0, infinite ones the largest or smallest number that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, namespace
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class RemoveInvalid(Rule):
    """Lets a model go on whose logits overflow; banned tokens keep a probability of 0, but are no longer impossible."""

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[RemoveInvalid], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        most = xp.finfo(scores.dtype).max
        scores = xp.where(xp.isnan(scores), 0.0, scores)
        return xp.where(scores == xp.inf, most, xp.where(scores == -xp.inf, -most, scores))
