"""Allowed tokens: all others are banned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, only
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class AllowedTokens(Rule):
    """Leaves `tokens` of a vocabulary of `vocabulary`."""

    tokens: tuple[int, ...]
    vocabulary: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[AllowedTokens], contexts: Sequence[Context]) -> Array:
        return only(scores, [rule._allowed for rule in rules])

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.ban(self._others)
        return True

    @cached_property
    def _allowed(self) -> NDArray[np.int64]:
        return np.unique(np.array(self.tokens, np.int64))

    @cached_property
    def _others(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.vocabulary), self._allowed)
