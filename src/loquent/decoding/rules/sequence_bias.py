"""Sequence bias: a number is added to the last token of a sequence where the others stand; alone, a logit bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, add
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class SequenceBias(Rule):
    """Adds each of `biases`, pairs of a sequence of at least one token and a number; those of one token add up."""

    biases: tuple[tuple[tuple[int, ...], float], ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[SequenceBias], contexts: Sequence[Context]) -> Array:
        return add(scores, [rule._changes(context) for rule, context in zip(rules, contexts)])

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not len(self._changes(context)[0])

    def _changes(self, context: Context) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        tail = context.tokens[-self._longest :].tolist() if self._longest else []
        completed = [(words[-1], bias) for words, bias in self._longer if tail[1 - len(words) :] == [*words[:-1]]]
        return _summed([*self._single, *completed]) if completed else self._always

    @cached_property
    def _single(self) -> list[tuple[int, float]]:
        return [(words[0], bias) for words, bias in self.biases if len(words) == 1]

    @cached_property
    def _longer(self) -> list[tuple[tuple[int, ...], float]]:
        return [(words, bias) for words, bias in self.biases if len(words) > 1]

    @cached_property
    def _longest(self) -> int:
        """The most tokens that are compared with the text's end."""
        return max((len(words) - 1 for words, _ in self._longer), default=0)

    @cached_property
    def _always(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return _summed(self._single)


def _summed(pairs: Sequence[tuple[int, float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each token once, with the sum of its numbers."""
    sums: dict[int, float] = {}
    for token, bias in pairs:
        sums[token] = sums.get(token, 0.0) + bias
    return np.array([*sums], np.int64), np.array([*sums.values()], np.float64)
