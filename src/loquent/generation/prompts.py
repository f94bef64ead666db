"""Prompts: rows of token ids without padding, from whatever a caller passes to `generate()`; no model is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.config import GenerationConfig
from loquent.decoding.arguments import as_tuple
from loquent.decoding.arrays import to_numpy
from loquent.errors import ArgumentError

# What preprocessors return beside ids and mask, and causal models have no use for.
_WITHOUT_EFFECT = frozenset({"token_type_ids", "length", "special_tokens_mask", "offset_mapping", "use_cache"})
_NOT_TAKEN = {
    "position_ids": "Positions are counted from each row's own tokens; leave it out.",
    "inputs_embeds": "Pass input_ids.",
    "past_key_values": "Beginnings that were read before are found again by their tokens; leave it out.",
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is to be continued."""

    columns: NDArray[np.int64]  # (rows, length), as the caller laid them out, padding included
    rows: list[NDArray[np.int64]]  # each row's own tokens
    device: Any  # of the caller's tensors; None where there were none


def read_prompts(inputs: Any, kwargs: dict[str, Any], config: GenerationConfig) -> Prompts:
    """The prompts among the arguments of `generate()`; takes what it uses out of `kwargs`.

    Raises:
        ArgumentError: there are two inputs, they are no ids, or the mask does not fit them.
    """
    given: dict[str, Any] = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    for name in ("input_ids", "attention_mask", *_WITHOUT_EFFECT, *_NOT_TAKEN):
        if name in kwargs:
            value = kwargs.pop(name)
            if value is not None and given.get(name) is not None:
                raise ArgumentError(f"{name} was given twice, by inputs and by name. Pass one of them.")
            given[name] = value if value is not None else given.get(name)
    for name, remedy in _NOT_TAKEN.items():
        if given.get(name) is not None:
            raise ArgumentError(f"{name} is not taken by generate(). {remedy}")
    unknown = set(given) - {"input_ids", "attention_mask", *_WITHOUT_EFFECT, *_NOT_TAKEN}
    if unknown:
        raise ArgumentError(f"inputs has {sorted(unknown)}, which text generation does not take. Leave them out.")
    ids = given.get("input_ids")
    if ids is None:
        if config.bos_token_id is None:
            raise ArgumentError("inputs is missing, and the model has no BOS token to start from. Pass input_ids.")
        ids = [[config.bos_token_id]]
    columns, mask = _columns(ids, config)
    if given.get("attention_mask") is not None:
        mask = _checked_mask(given["attention_mask"], columns)
    rows = [row[keep] for row, keep in zip(columns, mask)]
    empty = next((number for number, row in enumerate(rows) if not len(row)), None)
    if empty is not None:
        raise ArgumentError(f"row {empty} of the inputs has no tokens. Give it at least one, such as BOS.")
    return Prompts(columns, rows, getattr(ids, "device", None) if hasattr(ids, "cpu") else None)


def _columns(ids: Any, config: GenerationConfig) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The ids as (rows, length), and which of them are tokens."""
    if isinstance(ids, list) and ids and all(isinstance(row, list) for row in ids):
        length = max(map(len, ids))
        columns = np.full((len(ids), length), pad_token(config), np.int64)
        for row, own in zip(columns, ids):
            row[length - len(own) :] = _integers(np.asarray(own)) if own else ()
        return columns, np.arange(length) >= length - np.array([[len(own)] for own in ids])
    if isinstance(ids, str) or (isinstance(ids, list) and any(isinstance(row, str) for row in ids)):
        raise ArgumentError("inputs are texts. Pass the ids that the model's tokenizer makes of them.")
    columns = _integers(to_numpy(ids))
    if columns.ndim == 1:
        columns = columns[None, :]
    if columns.ndim != 2 or not columns.shape[0]:
        raise ArgumentError(f"input_ids has shape {tuple(columns.shape)}. Pass (rows, length), at least one row.")
    pad = config.pad_token_id
    if pad is not None and pad not in as_tuple(config.eos_token_id):
        return columns, columns != pad
    return columns, np.ones(columns.shape, np.bool_)


def _integers(ids: NDArray[Any]) -> NDArray[np.int64]:
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ArgumentError(f"input_ids are of type {ids.dtype}. Pass integer ids.")
    return ids.astype(np.int64)


def _checked_mask(mask: Any, columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    array = np.asarray(mask) if isinstance(mask, list) else to_numpy(mask)
    if array.ndim == 1:
        array = array[None, :]
    if array.shape != columns.shape:
        raise ArgumentError(
            f"attention_mask has shape {tuple(array.shape)}, but input_ids {tuple(columns.shape)}. Make them equal."
        )
    kept: NDArray[np.bool_] = array != 0
    return kept


def pad_token(config: GenerationConfig) -> int:
    """What rows are filled with: the pad token, else the first EOS token, else 0."""
    if config.pad_token_id is not None:
        return config.pad_token_id
    return next(iter(as_tuple(config.eos_token_id)), 0)
