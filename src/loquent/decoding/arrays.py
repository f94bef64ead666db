"""The few operations on scores that the array API standard lacks, for numpy's, torch's and other libraries' arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Array = Any
Ints = Sequence[int] | NDArray[Any]


def namespace(array: Array) -> Any:
    """The array API namespace of an array's library."""
    return array_api_compat.array_namespace(array)


def beside(scores: Array, values: Any, dtype: Any = None) -> Array:
    """`values` as an array of the library, and on the device, of `scores`."""
    xp = namespace(scores)
    return xp.asarray(np.asarray(values), dtype=dtype, device=array_api_compat.device(scores))


def column(scores: Array, values: Sequence[float]) -> Array:
    """One number a row, (rows, 1), ready to be broadcast over the scores."""
    return beside(scores, values, scores.dtype)[:, None]


def to_numpy(array: Array) -> NDArray[Any]:
    """The array on the host."""
    if array_api_compat.is_torch_array(array):
        return np.asarray(array.detach().cpu())
    return np.asarray(array)


def on_cpu(array: Array) -> bool:
    """Whether the array is in the host's memory."""
    return array_api_compat.is_numpy_array(array) or (
        array_api_compat.is_torch_array(array) and bool(array.device.type == "cpu")
    )


def put(scores: Array, rows: Ints, tokens: Ints, values: Array) -> Array:
    """The scores with `values` (one, or one a pair) at the pairs (rows[i], tokens[i])."""
    if not len(rows):
        return scores
    index = beside(scores, rows), beside(scores, tokens)
    if array_api_compat.is_writeable_array(scores):
        scores[index] = values
        return scores
    return scores.at[index].set(values)  # JAX


def placed(array: Array, first: int, rows: Array) -> Array:
    """The array with `rows` as its rows from `first` on."""
    stop = first + int(rows.shape[0])
    if array_api_compat.is_writeable_array(array):
        array[first:stop, :] = rows
        return array
    return array.at[first:stop, :].set(rows)  # JAX


def ban(scores: Array, rows: Ints, tokens: Ints) -> Array:
    """The scores with the pairs (rows[i], tokens[i]) made impossible."""
    return put(scores, rows, tokens, -float("inf"))


def add(scores: Array, changes: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Array:
    """The scores with numbers added in each row: pairs of different tokens, (n,), and what is added to them, (n,)."""
    rows = np.repeat(np.arange(len(changes)), [len(tokens) for tokens, _ in changes])
    if not len(rows):
        return scores
    tokens = np.concatenate([tokens for tokens, _ in changes])
    values = beside(scores, np.concatenate([values for _, values in changes]), scores.dtype)
    return put(scores, rows, tokens, scores[beside(scores, rows), beside(scores, tokens)] + values)


def only(scores: Array, tokens: Sequence[NDArray[Any]]) -> Array:
    """The scores with all but `tokens[i]`, (n,), of row i made impossible."""
    rows = np.repeat(np.arange(len(tokens)), [len(own) for own in tokens])
    columns = np.concatenate(tokens)
    left = namespace(scores).full_like(scores, -float("inf"))
    return put(left, rows, columns, scores[beside(scores, rows), beside(scores, columns)])


def nth_best(scores: Array, counts: Sequence[int]) -> Array:
    """The score of row i that is the `counts[i]`-th from the highest, or the lowest of fewer: (rows, 1)."""
    xp = namespace(scores)
    if max(counts) == 1:
        return xp.max(scores, axis=-1, keepdims=True)
    places = [min(count, scores.shape[1]) for count in counts]
    best, _ = top(scores, max(places))  # (rows, the largest count)
    return xp.take_along_axis(best, beside(scores, places)[:, None] - 1, axis=1)


def top(scores: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest scores of each row and their tokens, best first: (rows, count) each."""
    if array_api_compat.is_torch_array(scores):
        best = scores.topk(count, dim=-1)
        return best.values, best.indices
    rows = np.asarray(scores)
    some = np.argpartition(rows, rows.shape[1] - count, axis=1)[:, rows.shape[1] - count :]
    some.sort(axis=1)  # by token, so that the stable sort below puts equal scores in the order of their tokens
    order = np.argsort(-np.take_along_axis(rows, some, 1), axis=1, kind="stable")
    tokens = np.take_along_axis(some, order, 1)
    return beside(scores, np.take_along_axis(rows, tokens, 1)), beside(scores, tokens)


def log_softmax(scores: Array) -> Array:
    """Log-probabilities of each row."""
    xp = namespace(scores)
    shifted = scores - xp.max(scores, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
