"""Contrastive search: likely, and unlike what is there already (Su et al., 2022, arXiv:2202.06417).

    x[t] = argmax over the k likeliest v of  (1 - alpha) * p(v | x[<t]) - alpha * max over s < t of cos(h(v), h(x[s]))

h is the last hidden state behind a token, after the final norm. Each candidate is read by a fork of its own, all of
them in one pass; that pass also says what may follow the one that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Sequence
from loquent.decoding.arrays import Array, namespace, placed, to_numpy
from loquent.decoding.task import Read, Select, Strategy, Task
from loquent.decoding.trace import Contrast, Contrasted, Fate
from loquent.decoding.wants import Candidates, Hidden, Likeliest, Rows

# Values that agree to so many decimals count as equal, and the likelier token is taken: products of float32 numbers
# differ in their last digits with the company that a request has.
_DECIMALS = 6


def contrastive_search(task: Task, *, alpha: float, count: int, layer: int) -> Strategy:
    """Commits the best of `count` candidates at each place; `layer` is the model's last, whose states are compared."""
    sequence, ranked, score = task.open(), Likeliest(count), 0.0
    [(candidates, states)] = yield [Read(sequence, task.prompt, (ranked, Hidden((layer,), every=True)))]
    past = Past(states[layer])
    while True:
        candidates = _possible(candidates)
        tokens, probabilities = candidates.tokens.tolist(), np.exp(candidates.scores)
        forks = [sequence, *[sequence.fork() for _ in tokens[1:]]]
        answers = yield [Read(fork, [token], (Rows(), Hidden((layer,)))) for fork, token in zip(forks, tokens)]
        penalties = past.similarity([states[layer] for _, states in answers])
        values = np.round((1 - alpha) * probabilities - alpha * penalties, _DECIMALS)
        kept = int(values.argmax())
        sequence, (block, states) = _keep(forks, kept), answers[kept]
        ended = task.commit([tokens[kept]])
        if task.note:
            task.note(_contrasted(task, candidates, penalties, values, kept, score))
            score += float(candidates.scores[kept])
        if ended:
            return
        past.add(states[layer])
        [candidates] = yield [Select(sequence, block, ranked)]


class Past:
    """The directions of the hidden states behind a sequence's tokens, with room for more.

    Args:
        states: those of the prompt, (tokens, width).
    """

    def __init__(self, states: Array) -> None:
        self._rows, self._count = _directions(states), int(states.shape[0])

    def similarity(self, states: Items[Array]) -> NDArray[np.float64]:
        """The largest cosine of each of some states (1, width) with any of the past, (states,)."""
        xp = namespace(self._rows)
        cosines = _directions(xp.concat(states, axis=0)) @ self._rows[: self._count, :].T  # (states, tokens)
        largest: NDArray[np.float64] = to_numpy(xp.max(cosines, axis=-1)).astype(np.float64)
        return largest

    def add(self, states: Array) -> None:
        """These come next."""
        xp, stop = namespace(states), self._count + int(states.shape[0])
        if stop > self._rows.shape[0]:
            self._rows = xp.concat([self._rows, xp.zeros_like(self._rows)], axis=0)
        self._rows, self._count = placed(self._rows, self._count, _directions(states)), stop


def _directions(states: Array) -> Array:
    """The states in float32, at length one."""
    xp = namespace(states)
    wide = xp.astype(states, xp.float32)
    lengths = xp.sqrt(xp.sum(wide * wide, axis=-1, keepdims=True))
    return wide / xp.maximum(lengths, xp.full_like(lengths, 1e-30))


def _possible(candidates: Candidates) -> Candidates:
    """The candidates that rules leave any probability."""
    possible = np.exp(candidates.scores) > 0
    return Candidates(candidates.tokens[possible], candidates.scores[possible])


def _keep(forks: Items[Sequence], kept: int) -> Sequence:
    """Close all but one."""
    for index, fork in enumerate(forks):
        if index != kept:
            fork.close()
    return forks[kept]


def _contrasted(
    task: Task,
    candidates: Candidates,
    penalties: NDArray[np.float64],
    values: NDArray[np.float64],
    kept: int,
    before: float,
) -> Contrasted:
    """What the trace tells of the token that has just been committed; `before` is the score without it."""
    columns = zip(candidates.tokens.tolist(), candidates.scores.tolist(), penalties.tolist(), values.tolist())
    nodes = [
        Contrast(
            token=token,
            log_probability=gain,
            score=before + gain,
            fate="pruned",
            probability=math.exp(gain),
            penalty=penalty,
            value=value,
        )
        for token, gain, penalty, value in columns
    ]
    fate: Fate = "finished" if task.reason else "kept"
    nodes[kept] = replace(nodes[kept], fate=fate, lane=None if task.reason else 0, reason=task.reason)
    return Contrasted(len(task.output) - 1, tuple(nodes))
