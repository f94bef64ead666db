"""Bad words: token sequences that must not be generated; the last token of each is banned where the others stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, ban
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class BadWords(Rule):
    """Bans each of `words`, a sequence of at least one token."""

    words: tuple[tuple[int, ...], ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[BadWords], contexts: Sequence[Context]) -> Array:
        pairs = [
            (row, token)
            for row, (rule, context) in enumerate(zip(rules, contexts))
            for token in (*rule._single.tolist(), *rule._completions(context))
        ]
        return ban(scores, [row for row, _ in pairs], [token for _, token in pairs])

    def narrow(self, choice: Choice, context: Context) -> bool:
        choice.ban(self._single)
        if self._longer:
            choice.ban(np.array(self._completions(context), np.int64))
        return True

    @cached_property
    def _single(self) -> NDArray[np.int64]:
        return np.array([word[0] for word in self.words if len(word) == 1], np.int64)

    @cached_property
    def _longer(self) -> list[tuple[list[int], int]]:
        return [(list(word[:-1]), word[-1]) for word in self.words if len(word) > 1]

    def _completions(self, context: Context) -> list[int]:
        """The tokens that would complete one of the longer words here."""
        longest = max((len(beginning) for beginning, _ in self._longer), default=1)
        tail = context.tokens[-longest:].tolist()
        return [token for beginning, token in self._longer if tail[-len(beginning) :] == beginning]
