"""Frequency and presence penalties: what has been generated loses score, by its count and for being there at all.

    score(x) - frequency * count(x) - presence * [count(x) > 0]

OpenAI's definition (https://platform.openai.com/docs/api-reference/chat/create), and vLLM's: the prompt does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, add
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class FrequencyPresence(Rule):
    """Positive numbers discourage repetition, negative ones encourage it."""

    frequency: float
    presence: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[FrequencyPresence], contexts: Sequence[Context]) -> Array:
        return add(scores, [rule._changes(context) for rule, context in zip(rules, contexts)])

    def narrow(self, choice: Choice, context: Context) -> bool:
        return context.generated == 0

    def _changes(self, context: Context) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        tokens, counts = np.unique(context.tokens[context.prompt :], return_counts=True)
        return tokens, -(self.frequency * counts.astype(np.float64) + self.presence)
