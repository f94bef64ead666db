"""Mirostat 2: tokens more surprising than mu bits go, and mu follows what the chosen tokens' surprise was.

    mu <- mu - eta (surprise - tau), from mu = 2 tau        (Basu et al., 2021, arXiv:2007.14966, algorithm 2)

The surprise of a chosen token is -log2 of its probability among the tokens that were left, as in llama.cpp. A row knows
the tokens before it, not whether they stay: so what was left is remembered with each length, and the update is made
where the next row shows which token came.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, column, log_softmax, namespace, to_numpy
from loquent.decoding.rules.base import Context, Rule

# As many tokens may be drafted beyond the last one that stays; a state holds numbers for up to 2**mu tokens.
_KEPT = 32


@dataclass(frozen=True, eq=False)
class _State:
    """What a row was cut with, and what it left: tokens, ascending, and their surprise in bits, (n,) each."""

    mu: float
    tokens: NDArray[np.int32]
    surprises: NDArray[np.float32]

    def surprise(self, token: int) -> float | None:
        """That of a token that came; None: it had been cut off (it was forced, or is a draft that will not stand)."""
        place = int(np.searchsorted(self.tokens, token))
        found = place < len(self.tokens) and self.tokens[place] == token
        return float(self.surprises[place]) if found else None


@dataclass(frozen=True)
class Mirostat(Rule):
    """Keeps the surprise of chosen tokens near `tau` bits, correcting with the rate `eta`."""

    tau: float
    eta: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Mirostat], contexts: Sequence[Context]) -> Array:
        for rows in _turns(contexts):
            index = beside(scores, rows)
            scores[index] = cls._cut(scores[index], [rules[row] for row in rows], [contexts[row] for row in rows])
        return scores

    @classmethod
    def _cut(cls, scores: Array, rules: Sequence[Mirostat], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        limits = [rule._mu(context) for rule, context in zip(rules, contexts)]
        surprising = _bits(scores) > column(scores, limits)
        scores = xp.where(surprising & (scores < xp.max(scores, axis=-1, keepdims=True)), -xp.inf, scores)
        for row, mu, context in zip(to_numpy(_bits(scores)), limits, contexts):
            left = np.flatnonzero(np.isfinite(row))
            state = _State(mu, left.astype(np.int32), row[left])
            context.memory.put(cls, len(context.tokens), state, _KEPT)
        return scores

    def _mu(self, context: Context) -> float:
        """The limit behind all of the context's tokens."""
        known = context.memory.latest(Mirostat, len(context.tokens) - 1)
        if known is None:
            return 2 * self.tau
        length, state = known
        surprise = state.surprise(int(context.tokens[length]))
        return float(state.mu if surprise is None else state.mu - self.eta * (surprise - self.tau))


def _bits(scores: Array) -> Array:
    return log_softmax(scores) / -math.log(2)


def _turns(contexts: Sequence[Context]) -> Iterator[list[int]]:
    """The rows in groups of which each has one row of a sequence, its shorter contexts first."""
    order = sorted(range(len(contexts)), key=lambda row: len(contexts[row].tokens))
    groups: list[list[int]] = []
    earlier: dict[int, int] = {}
    for row in order:
        turn = earlier.get(id(contexts[row].memory), 0)
        earlier[id(contexts[row].memory)] = turn + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(row)
    yield from groups
