"""XTC, "exclude top choices": now and then all likely tokens but the least likely of them go.

With some probability, drawn anew for each token, those tokens whose probability reaches a threshold are removed except
for the last of them, where there are two or more. It is P. E. Weidmann's, as in llama.cpp and text-generation-webui
(https://github.com/oobabooga/text-generation-webui/pull/6335). Tokens equal to that last one stay with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, beside, column, log_softmax, namespace
from loquent.decoding.choice import Choice
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class XTC(Rule):
    """Acts with `probability` on the tokens that have probability `threshold`."""

    probability: float
    threshold: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[XTC], contexts: Sequence[Context]) -> Array:
        acts = [rule.acts(context) for rule, context in zip(rules, contexts)]
        if not any(acts):
            return scores
        xp = namespace(scores)
        likely = xp.exp(log_softmax(scores)) >= column(scores, [rule.threshold for rule in rules])
        likely = likely & beside(scores, acts)[:, None]
        last = xp.min(xp.where(likely, scores, xp.inf), axis=-1, keepdims=True)
        return xp.where(likely & (scores > last), -xp.inf, scores)

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not self.acts(context)

    def acts(self, context: Context) -> bool:
        """Whether it does in this context: a draw of its own."""
        return uniform(context.seed, len(context.tokens), Purpose.XTC) < self.probability
