"""Renormalisation: what the rules have left becomes log-probabilities again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, log_softmax
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class Renormalize(Rule):
    """Acts last; it matters where scores are compared between rows (beam search) or looked at."""

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Renormalize], contexts: Sequence[Context]) -> Array:
        return log_softmax(scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not choice.best  # neither the best token nor a draw depends on it
