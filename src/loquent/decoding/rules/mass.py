"""How far down an order of tokens their weights reach a sum: what top-p and typical sampling both ask; no rule."""

from __future__ import annotations

import numpy as np

from loquent.decoding.arrays import Array, beside, namespace, to_numpy, top

# Sorting 50,000 scores takes 4 ms; the best 256, which are mostly all that is needed, are found in 0.1 ms.
_FEW = 256


def least_key(keys: Array, wanted: Array, weights: Array | None = None, count: int = _FEW) -> Array:
    """The lowest key that is needed in each row, (rows, 1), so that the weights of the highest reach `wanted`.

    Looks among the `count` highest first, and where they do not reach it, among more.

    Args:
        keys: what orders the tokens, highest first, (rows, vocabulary).
        wanted: the sum, (rows, 1).
        weights: what is summed, (rows, vocabulary), none of it negative; None: exp(key - highest key).
        count: how many of the highest to look among.
    """
    xp, width = namespace(keys), keys.shape[1]
    if count < width:
        ordered, order = top(keys, count)
    elif weights is None:
        ordered = order = xp.sort(keys, axis=-1, descending=True)
    else:
        order = xp.argsort(keys, axis=-1, descending=True)
        ordered = xp.take_along_axis(keys, order, axis=1)
    own = xp.exp(ordered - ordered[:, :1]) if weights is None else xp.take_along_axis(weights, order, axis=1)
    before = xp.cumulative_sum(own, axis=-1) - own
    kept = xp.sum(xp.astype(before < wanted, xp.int64), axis=-1, keepdims=True)
    least = xp.take_along_axis(ordered, xp.maximum(kept - 1, xp.zeros_like(kept)), axis=1)
    unsure = np.flatnonzero(to_numpy(kept)[:, 0] == count) if count < width else ()
    if len(unsure):
        rows = beside(keys, unsure)
        left = None if weights is None else weights[rows]
        least[rows] = least_key(keys[rows], wanted[rows], left, count * 16)
    return least
