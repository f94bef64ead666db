"""Exponential decay length penalty: the end tokens gain score, ever faster, once a text has reached a length.

score + |score| (factor ** (generated - start) - 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loquent.decoding.arrays import Array, beside, namespace, put
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule

_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class ExponentialDecay(Rule):
    """Raises (or with a factor below 1 lowers) the scores of `ends` behind `start` generated tokens."""

    start: int
    factor: float
    ends: tuple[int, ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[ExponentialDecay], contexts: Sequence[Context]) -> Array:
        pairs = [
            (row, token, rule._gain(context))
            for row, (rule, context) in enumerate(zip(rules, contexts))
            if rule._acts(context)
            for token in rule.ends
        ]
        if not pairs:
            return scores
        xp = namespace(scores)
        rows, tokens = [row for row, *_ in pairs], [token for _, token, _ in pairs]
        present = scores[beside(scores, rows), beside(scores, tokens)]
        size = xp.where(present > -xp.inf, xp.abs(present), 0.0)  # what is banned, stays so
        return put(scores, rows, tokens, present + size * beside(scores, [gain for *_, gain in pairs], scores.dtype))

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not self._acts(context)

    def _acts(self, context: Context) -> bool:
        return context.generated > self.start

    def _gain(self, context: Context) -> float:
        try:
            return float(min(self.factor ** (context.generated - self.start) - 1, _MOST))
        except OverflowError:
            return _MOST
