"""From scores to tokens: the most likely, a draw, or the best few, for the rows of many requests at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, namespace, on_cpu, to_numpy, top
from loquent.decoding.wants import Candidates

# Several passes over more numbers than this leave a CPU's cache, and take four times as long.
_BLOCK = 1 << 16


def most_likely(scores: Array) -> NDArray[np.int64]:
    """The token with the highest score of each row, (rows,)."""
    return to_numpy(namespace(scores).argmax(scores, axis=-1))


def drawn(scores: Array, uniforms: Sequence[float]) -> NDArray[np.int64]:
    """A token of each row by its probability, where row i's random number in [0, 1) is `uniforms[i]`.

    The token at which the cumulative probability passes the random number: a function of the row and the number
    alone. Sums are in float64, so that a vocabulary's many small terms do not round away.
    """
    size = max(1, _BLOCK // scores.shape[1]) if on_cpu(scores) else len(uniforms)
    starts = range(0, len(uniforms), size)
    return np.concatenate([_drawn(scores[at : at + size, :], uniforms[at : at + size]) for at in starts])


def _drawn(scores: Array, uniforms: Sequence[float]) -> NDArray[np.int64]:
    xp = namespace(scores)
    wide = xp.astype(scores, xp.float64)
    weights = xp.exp(wide - xp.max(wide, axis=-1, keepdims=True))
    sums = xp.cumulative_sum(weights, axis=-1)  # (rows, vocabulary)
    targets = beside(scores, uniforms, xp.float64)[:, None] * sums[:, -1:]
    return to_numpy(xp.sum(xp.astype(sums <= targets, xp.int64), axis=-1))


def best(scores: Array, counts: Sequence[int]) -> list[Candidates]:
    """The `counts[i]` tokens of row i with the highest scores, those with the lower ids of equal ones."""
    xp, count = namespace(scores), min(max(counts), scores.shape[1])
    found, places = top(scores, count)
    least = found[:, -1:]
    left_out = _how_many(xp, scores == least) > _how_many(xp, found == least)  # which of these, the library decided
    values, tokens = to_numpy(found), to_numpy(places)
    order = np.lexsort((tokens, -values))
    values, tokens = np.take_along_axis(values, order, 1), np.take_along_axis(tokens, order, 1)
    for row in np.flatnonzero(to_numpy(left_out)):
        whole = to_numpy(scores[int(row), :])
        tokens[row] = np.argsort(-whole, kind="stable")[:count]
        values[row] = whole[tokens[row]]
    return [
        Candidates(tokens[row, :own].astype(np.int64), values[row, :own].astype(np.float64))
        for row, own in enumerate(counts)
    ]


def different(scores: NDArray[Any], uniforms: Sequence[float]) -> Candidates:
    """As many different tokens of a row (vocabulary,) as there are pairs of random numbers, by descending keys.

    Keys are Gumbel numbers around the scores (`wants.Draws`), made in their order: the reciprocals of the keys'
    exponentials are the arrivals of a Poisson process whose rate is the weight that is left, so that two numbers a
    draw are enough, one for the key and one for the token.
    """
    possible = np.flatnonzero(scores > -np.inf)  # few, behind most rules
    if not len(possible):
        return Candidates(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    wide = scores[possible].astype(np.float64)
    shift = wide.max()
    weights = np.exp(wide - shift)
    count = min(len(uniforms) // 2, int(np.count_nonzero(weights)))
    sums = np.cumsum(weights)
    taken: list[int] = []
    keys: list[float] = []
    left, arrival = float(sums[-1]), 0.0
    for index in range(count):
        arrival -= math.log1p(-uniforms[2 * index]) / left
        target = uniforms[2 * index + 1] * left
        for token in sorted(taken):  # as if their weights were not there
            if sums[token] - weights[token] <= target:
                target += float(weights[token])
        token = int(np.searchsorted(sums, target, side="right"))
        if token >= len(weights) or token in taken or not weights[token]:  # rounding: the best that is left
            rest = weights.copy()
            rest[taken] = 0
            token = int(rest.argmax())
        taken.append(token)
        keys.append(shift - math.log(arrival) if arrival > 0 else math.inf)
        left = max(float(sums[-1] - weights[taken].sum()), float(np.finfo(np.float64).tiny))
    return Candidates(possible[taken].astype(np.int64), wide[taken], np.array(keys))


def _how_many(xp: Any, mask: Array) -> Array:
    return xp.sum(xp.astype(mask, xp.int64), axis=-1)
