"""No-repeat n-grams: a token that would complete an n-gram already there is banned (Paulus et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, ban
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class NoRepeatNgrams(Rule):
    """No n-gram of `size` tokens occurs twice, the prompt's included."""

    size: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[NoRepeatNgrams], contexts: Sequence[Context]) -> Array:
        banned = [rule.completions(context.tokens) for rule, context in zip(rules, contexts)]
        rows = np.repeat(np.arange(len(banned)), [len(tokens) for tokens in banned])
        return ban(scores, rows, np.concatenate(banned))

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.ban(self.completions(context.tokens))
        return True

    def completions(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The tokens that followed earlier occurrences of the last `size - 1` tokens."""
        return followers(tokens, tokens, self.size)


def followers(text: NDArray[np.int64], tokens: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """What comes in `text` behind occurrences of the last `size - 1` of `tokens`."""
    if len(text) < size or len(tokens) < size - 1:
        return text[:0]
    grams = np.lib.stride_tricks.sliding_window_view(text, size)  # (length - size + 1, size)
    beginning = tokens[len(tokens) - size + 1 :]
    found: NDArray[np.int64] = grams[(grams[:, :-1] == beginning).all(axis=1), -1]
    return found
