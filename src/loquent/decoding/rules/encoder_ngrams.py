"""Encoder no-repeat n-grams: a token that would complete one of the prompt's n-grams is banned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, ban
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.ngrams import followers


@dataclass(frozen=True)
class EncoderNoRepeatNgrams(Rule):
    """No n-gram of `size` tokens of the prompt, a decoder-only model's encoder input, occurs again."""

    size: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[EncoderNoRepeatNgrams], contexts: Sequence[Context]) -> Array:
        banned = [rule._banned(context) for rule, context in zip(rules, contexts)]
        rows = np.repeat(np.arange(len(banned)), [len(tokens) for tokens in banned])
        return ban(scores, rows, np.concatenate(banned))

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.ban(self._banned(context))
        return True

    def _banned(self, context: Context) -> NDArray[np.int64]:
        return followers(context.tokens[: context.prompt], context.tokens, self.size)
