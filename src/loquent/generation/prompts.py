"""Prompts: rows of token ids without padding, from whatever a caller passes to `generate()`; no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.config import GenerationConfig
from loquent.decoding.arguments.surroundings import as_tuple
from loquent.decoding.arrays import to_numpy
from loquent.errors import ArgumentError

_TAKEN = frozenset({"input_ids", "attention_mask", "past_key_values"})
# What preprocessors return beside ids and mask, and causal models have no use for.
_WITHOUT_EFFECT = frozenset({"token_type_ids", "length", "special_tokens_mask", "offset_mapping", "use_cache"})
_NOT_TAKEN = {
    "position_ids": "Positions are counted from each row's own tokens; leave it out.",
    "inputs_embeds": "Pass input_ids.",
}
INPUT_NAMES = frozenset({*_TAKEN, "token_type_ids", *_NOT_TAKEN})
"""The keyword arguments of `generate()` that are inputs, or belong to them."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is to be continued."""

    columns: NDArray[np.int64]  # (rows, length), as the caller laid them out, padding included
    kept: NDArray[np.bool_]  # (rows, length): which of them are the row's own, and no padding
    rows: list[NDArray[np.int64]]  # each row's own tokens
    device: Any  # of the caller's tensors; None where there were none
    as_tensors: bool = True  # whether results are torch's tensors, or else arrays
    last: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # (rows,), each row's last column


def read_prompts(
    inputs: Any, named: Mapping[str, Any], config: GenerationConfig, gives_tensors: bool = True
) -> Prompts:
    """The prompts among the arguments of `generate()`; `named` are those of `INPUT_NAMES`.

    `gives_tensors` says what becomes of ids that came as lists or arrays; tensors become tensors.

    Raises:
        ArgumentError: there are two inputs, they are no ids, or the mask does not fit them.
    """
    given: dict[str, Any] = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    for name, value in named.items():
        if value is not None and given.get(name) is not None:
            raise ArgumentError(f"{name} was given twice, by inputs and by name. Pass one of them.")
        given[name] = value if value is not None else given.get(name)
    for name, remedy in _NOT_TAKEN.items():
        if given.get(name) is not None:
            raise ArgumentError(f"{name} is not taken by generate(). {remedy}")
    unknown = set(given) - {*_TAKEN, *_WITHOUT_EFFECT, *_NOT_TAKEN}
    if unknown:
        raise ArgumentError(f"inputs has {sorted(unknown)}, which text generation does not take. Leave them out.")
    ids, mask = given.get("input_ids"), given.get("attention_mask")
    if ids is None:
        if config.bos_token_id is None:
            raise ArgumentError("inputs is missing, and the model has no BOS token to start from. Pass input_ids.")
        ids, mask = [[config.bos_token_id]], [[1]]
    columns, kept = _tokens("input_ids", ids, "attention_mask", mask, config)
    rows, is_tensor = [row[keep] for row, keep in zip(columns, kept)], hasattr(ids, "cpu")
    last = kept.shape[1] - 1 - np.argmax(kept[:, ::-1], axis=1)
    device = getattr(ids, "device", None) if is_tensor else None
    return Prompts(columns, kept, rows, device, is_tensor or gives_tensors, last)


def read_negative_prompts(
    ids: Any, mask: Any, configs: Sequence[GenerationConfig]
) -> list[NDArray[np.int64]] | list[None]:
    """`negative_prompt_ids` and its mask: each row's own tokens, or None for each where there are none.

    A single row is that of all. There is a config for each row.

    Raises:
        ArgumentError: they are no ids, the mask does not fit them, there are too few or many, or no row is guided.
    """
    rows = len(configs)
    if ids is None:
        if mask is not None:
            raise ArgumentError("negative_prompt_attention_mask has no effect without negative_prompt_ids. Pass both.")
        return [None] * rows
    if all(config.guidance_scale is None for config in configs):
        raise ArgumentError(
            "negative_prompt_ids has no effect without guidance_scale. Pass guidance_scale, such as 1.5, or leave "
            "negative_prompt_ids out."
        )
    columns, kept = _tokens("negative_prompt_ids", ids, "negative_prompt_attention_mask", mask, configs[0])
    negative = [row[keep] for row, keep in zip(columns, kept)]
    if len(negative) not in (1, rows):
        raise ArgumentError(
            f"negative_prompt_ids has {len(negative)} rows for {rows} prompts. Pass one row for each, or one for all."
        )
    return negative if len(negative) == rows else negative * rows


def _tokens(
    argument: str, ids: Any, mask_argument: str, mask: Any, config: GenerationConfig
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The ids as (rows, length), and which of them are tokens; at least one of each row."""
    columns, present = _columns(argument, ids, config)
    if mask is None:
        kept = present & _not_padding(columns, config)
    else:
        kept = present & _checked_mask(mask_argument, mask, argument, columns, present)
    empty = next((number for number, row in enumerate(kept) if not row.any()), None)
    if empty is not None:
        raise ArgumentError(f"row {empty} of {argument} has no tokens. Give it at least one, such as BOS.")
    return columns, kept


def _columns(argument: str, ids: Any, config: GenerationConfig) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The ids as (rows, length), and which of them were given; lists of different lengths end in the same column."""
    if _is_nested(ids):
        return _aligned(argument, ids, pad_token(config))
    if isinstance(ids, str) or (isinstance(ids, list | tuple) and any(isinstance(row, str) for row in ids)):
        raise ArgumentError(f"{argument} are texts. Pass the ids that the model's tokenizer makes of them.")
    columns = _integers(argument, ids)
    if columns.ndim and not len(columns):
        raise ArgumentError(f"there is no row in {argument}. Pass (rows, length), at least one row.")
    if columns.ndim == 1:
        columns = columns[None, :]
    if columns.ndim != 2:
        raise ArgumentError(f"{argument} has shape {tuple(columns.shape)}. Pass (rows, length).")
    return columns, np.ones(columns.shape, np.bool_)


def _not_padding(columns: NDArray[np.int64], config: GenerationConfig) -> NDArray[np.bool_]:
    """Which ids are tokens where no mask says so: all but the pad token, if that is not an end token as well."""
    pad = config.pad_token_id
    if pad is None or pad in as_tuple(config.eos_token_id):
        return np.ones(columns.shape, np.bool_)
    tokens: NDArray[np.bool_] = columns != pad
    return tokens


def _is_nested(values: Any) -> bool:
    """Whether it is a list of rows."""
    return isinstance(values, list | tuple) and any(isinstance(row, list | tuple) or np.ndim(row) for row in values)


def _aligned(argument: str, rows: Any, fill: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of any lengths as (rows, length), filled on the left, and where they are."""
    arrays = [_integers(argument, row) for row in rows]
    if any(array.ndim != 1 for array in arrays):
        raise ArgumentError(f"{argument} is nested too deeply. Pass a list of rows, each of them a list of integers.")
    length = max(map(len, arrays))
    columns = np.full((len(arrays), length), fill, np.int64)
    filled = np.zeros((len(arrays), length), np.bool_)
    for array, row, known in zip(arrays, columns, filled):
        row[length - len(array) :] = array
        known[length - len(array) :] = True
    return columns, filled


def _integers(argument: str, values: Any) -> NDArray[np.int64]:
    array = _array(argument, values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ArgumentError(f"{argument} are of type {array.dtype}. Pass integers.")
    return array.astype(np.int64)


def _array(argument: str, values: Any) -> NDArray[Any]:
    try:
        return to_numpy(values)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{argument} make no array: {error}. Pass integers, (rows, length).") from error


def _checked_mask(
    argument: str, mask: Any, of: str, columns: NDArray[np.int64], present: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    values: NDArray[Any]
    if _is_nested(mask):
        values, known = _aligned(argument, mask, 0)
        fits = np.array_equal(known, present)
    else:
        values = _array(argument, mask)
        values = values[None, :] if values.ndim == 1 else values
        fits = values.shape == columns.shape
    if not fits:
        raise ArgumentError(
            f"{argument} has shape {tuple(values.shape)}, but {of} {tuple(columns.shape)}. Make them equal."
        )
    kept: NDArray[np.bool_] = values != 0
    return kept


def pad_token(config: GenerationConfig) -> int:
    """What rows are filled with: the pad token, else the first EOS token, else 0."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    return next(iter(as_tuple(config.eos_token_id)), 0)
