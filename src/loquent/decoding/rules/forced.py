"""Forced tokens: the first token (a language code, say) or the last possible one (an end token) is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, put
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


def _force(scores: Array, choices: Sequence[tuple[int, ...]]) -> Array:
    """Rows with choices get a score of 0 for those and none for the others."""
    for row, tokens in enumerate(choices):
        if tokens:
            scores[row, :] = -float("inf")
            scores = put(scores, [row] * len(tokens), tokens, 0.0)
    return scores


@dataclass(frozen=True)
class ForcedBegin(Rule):
    """`token` comes first where the prompt is a single token (what an encoder-decoder model's decoder starts with)."""

    token: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[ForcedBegin], contexts: Sequence[Context]) -> Array:
        return _force(
            scores, [(rule.token,) if len(context.tokens) == 1 else () for rule, context in zip(rules, contexts)]
        )

    def narrow(self, choice: Choice, context: Context) -> bool:
        return len(context.tokens) != 1


@dataclass(frozen=True)
class ForcedEnd(Rule):
    """One of `tokens` comes as token number `length` (the prompt's counted), the last that there may be."""

    tokens: tuple[int, ...]
    length: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[ForcedEnd], contexts: Sequence[Context]) -> Array:
        return _force(
            scores,
            [rule.tokens if len(context.tokens) == rule.length - 1 else () for rule, context in zip(rules, contexts)],
        )

    def narrow(self, choice: Choice, context: Context) -> bool:
        return len(context.tokens) != self.length - 1
