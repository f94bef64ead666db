"""Repetition penalty: scores of tokens already there are divided by it if positive, multiplied if not.

Keskar et al., 2019 (CTRL), arXiv:1909.05858; the prompt's tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, namespace, put
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class RepetitionPenalty(Rule):
    """Above 1 discourages repetition, below 1 (and above 0) encourages it."""

    penalty: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[RepetitionPenalty], contexts: Sequence[Context]) -> Array:
        return penalized(scores, [rule.penalty for rule in rules], [context.tokens for context in contexts])

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.penalty, choice.seen = self.penalty, context.tokens
        return True


def penalized(scores: Array, penalties: Sequence[float], texts: Sequence[NDArray[np.int64]]) -> Array:
    """The scores where the tokens of `texts[i]`, each as often as one likes, have had row i's penalty once."""
    xp = namespace(scores)
    tokens, lengths = np.concatenate(texts), [len(text) for text in texts]
    rows = np.repeat(np.arange(len(texts)), lengths)
    each = beside(scores, np.repeat(penalties, lengths), scores.dtype)
    present = scores[beside(scores, rows), beside(scores, tokens)]
    return put(scores, rows, tokens, xp.where(present < 0, present * each, present / each))
