"""Token healing: the prompt's last token is made again among those whose text begins with its own.

    score[removed] += 1;  score[token] = -inf for tokens that do not begin with the text of the removed one

The bonus is transformers', which wants "http" not to become "https" without a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, beside, namespace, put
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule

_BONUS = 1.0


@dataclass(frozen=True)
class Heal(Rule):
    """Makes the token `removed` again, as one of `tokens`; it acts where the prompt is not whole yet."""

    removed: int
    tokens: tuple[int, ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Heal], contexts: Sequence[Context]) -> Array:
        xp, inf = namespace(scores), float("inf")
        for row, (rule, context) in enumerate(zip(rules, contexts)):
            if context.generated < 0:
                kept = beside(scores, rule.tokens)
                values = xp.take(scores[row, :], kept)
                values = xp.where(kept == rule.removed, values + _BONUS, values)
                scores[row, :] = -inf
                scores = put(scores, [row] * len(rule.tokens), rule.tokens, values)
        return scores

    def narrow(self, choice: Choice, context: Context) -> bool:
        return context.generated >= 0
