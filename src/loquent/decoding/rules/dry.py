"""DRY, "don't repeat yourself": a token that would go on with what has been there before loses score.

    score(x) - multiplier * base ** (n - allowed_length),    n >= allowed_length

n is the length of the longest end of the text that has been there before with x behind it; it does not reach back over
a sequence breaker. The definition is llama.cpp's (`llama_sampler_dry_apply`), after P. E. Weidmann's
https://github.com/oobabooga/text-generation-webui/pull/5677. The prompt counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, add
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule

# The natural logarithm of the largest float32, to which llama.cpp bounds the power.
_LOG_OF_MOST = 88.7228391


@dataclass(frozen=True)
class DRY(Rule):
    """Penalises repetitions of `allowed_length` tokens and more within the last `window` tokens (0: all).

    Each of `breakers` is a sequence of at least one token; one of a single token is never penalised itself.
    """

    multiplier: float
    base: float
    allowed_length: int
    breakers: tuple[tuple[int, ...], ...] = ()
    window: int = 0

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[DRY], contexts: Sequence[Context]) -> Array:
        return add(scores, [rule._changes(context) for rule, context in zip(rules, contexts)])

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not len(self._changes(context)[0])

    def _changes(self, context: Context) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        text = context.tokens[-self.window :]
        repeats = {token: length for token, length in self._repeats(text).items() if token not in self._single}
        lost = [-self.multiplier * self.base ** min(n - self.allowed_length, self._most) for n in repeats.values()]
        return np.array([*repeats], np.int64), np.array(lost, np.float64)

    def _repeats(self, text: NDArray[np.int64]) -> dict[int, int]:
        """The tokens that come behind earlier occurrences of the text's end, with the longest end for each."""
        # Longer ones are penalised no more, and looking at them takes time.
        limit = min(self._unbroken(text), self.allowed_length + self._most)
        found: dict[int, int] = {}
        places, length = np.arange(len(text) - 1), 0  # where an occurrence of the last `length` tokens ends
        while length < limit and len(places):
            if length >= self.allowed_length:
                found.update(dict.fromkeys(text[places + 1].tolist(), length))
            places = places[places >= length]
            places = places[text[places - length] == text[len(text) - 1 - length]]
            length += 1
        if length >= self.allowed_length:
            found.update(dict.fromkeys(text[places + 1].tolist(), length))
        return found

    def _unbroken(self, text: NDArray[np.int64]) -> int:
        """How many tokens there are behind the last sequence breaker."""
        broken = np.flatnonzero(np.isin(text, self._heads))
        for head in reversed(broken.tolist()):
            tails = [tail for tail in self._tails[int(text[head])] if text[head + 1 :][: len(tail)].tolist() == [*tail]]
            if tails:
                return len(text) - 1 - head - max(map(len, tails))
        return len(text)

    @cached_property
    def _most(self) -> int:
        """The largest exponent."""
        return int(_LOG_OF_MOST / math.log(self.base)) if self.base > 1.000001 else 1 << 30

    @cached_property
    def _tails(self) -> dict[int, list[tuple[int, ...]]]:
        """What makes a breaker behind a first token."""
        tails: dict[int, list[tuple[int, ...]]] = {}
        for breaker in self.breakers:
            tails.setdefault(breaker[0], []).append(breaker[1:])
        return tails

    @cached_property
    def _heads(self) -> NDArray[np.int64]:
        return np.array(sorted(self._tails), np.int64)

    @cached_property
    def _single(self) -> frozenset[int]:
        return frozenset(breaker[0] for breaker in self.breakers if len(breaker) == 1)
