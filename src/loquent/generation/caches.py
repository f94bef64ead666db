"""Caches that are passed to `generate()` as `past_key_values`, and those that it returns; it reads nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.cache import StoreKind
from loquent.cache.faces import PADDING, Cache, Columns, DynamicCache, EncoderDecoderCache, OffloadedCache
from loquent.cache.faces.quantized import QuantizedCache, config_of
from loquent.errors import ArgumentError

Passed = Cache | EncoderDecoderCache | None
"""What may be passed as `past_key_values`."""


def passed_cache(inputs: Any, named: Mapping[str, Any]) -> Passed:
    """What was passed as `past_key_values`, by name or in the mapping that holds the inputs.

    Raises:
        ArgumentError: it is no cache.
    """
    given = named.get("past_key_values")
    if given is None and isinstance(inputs, Mapping):
        given = inputs.get("past_key_values")
    if given is None or isinstance(given, Cache | EncoderDecoderCache):
        return given
    raise ArgumentError(
        f"past_key_values is a {type(given).__name__}, not a cache. Pass a loquent.DynamicCache(), or what an earlier "
        "call returned."
    )


def own_cache(passed: Passed) -> Cache | None:
    """The cache of the decoder's own attention."""
    return passed.self_attention_cache if isinstance(passed, EncoderDecoderCache) else passed


def new_cache(kind: StoreKind) -> Cache:
    """A cache for what a request of this kind leaves."""
    if kind.coding is not None:
        return QuantizedCache(cache_config=config_of(kind.coding))
    return OffloadedCache(kind.folder) if kind.offloaded else DynamicCache()


def check_cache(cache: Cache, rows: Sequence[NDArray[np.int64]], columns: int, new_rows: int) -> None:
    """Refuse a cache that the prompts do not begin with.

    Args:
        cache: what was passed.
        rows: the prompts' tokens.
        columns: how many columns the result will have at most, but the last, which no cache holds.
        new_rows: how many rows it will have.

    Raises:
        ArgumentError: the prompts do not begin with what it holds, or it has no room for the result.
    """
    cache.check_room(new_rows, columns)
    if not cache.get_seq_length():
        return
    if cache.batch_size % len(rows):
        raise ArgumentError(
            f"past_key_values holds {cache.batch_size} rows, but input_ids has {len(rows)}. Pass the cache of this "
            "batch, or a new DynamicCache()."
        )
    if not cache.columns.known:
        raise ArgumentError(
            "past_key_values holds tokens that forward read from inputs_embeds, or with position_ids or token_type_ids "
            "of their own, which generate() cannot continue. Continue it by forward, or pass input_ids to fill it."
        )
    each = cache.batch_size // len(rows)
    for number, held in enumerate(cache.columns.rows()):
        _check_beginning(held, rows[number // each], number // each)


def _check_beginning(held: NDArray[np.int64], prompt: NDArray[np.int64], row: int) -> None:
    common = min(len(held), len(prompt))
    differing = np.flatnonzero(held[:common] != prompt[:common])
    if len(differing):
        at = int(differing[0])
        raise ArgumentError(
            f"row {row} of input_ids differs from past_key_values at token {at}: {prompt[at]} where the cache read "
            f"{held[at]}. input_ids must begin with all tokens of the cache: crop it to what they share, or pass a new "
            "DynamicCache()."
        )
    if len(held) > len(prompt):
        raise ArgumentError(
            f"row {row} of input_ids has {len(prompt)} tokens, but past_key_values holds {len(held)}. input_ids must "
            "hold all tokens, those in the cache included: pass them, or crop the cache."
        )


def result_columns(sequences: NDArray[np.int64], kept: NDArray[np.bool_], lengths: Sequence[int]) -> Columns:
    """What a cache holds of a result: all columns but the last, whose token nothing has read.

    Args:
        sequences: ids (rows, columns), as they are returned.
        kept: (rows, columns of the prompt): which of them are tokens.
        lengths: how many tokens follow in each row.
    """
    new = np.arange(sequences.shape[1] - kept.shape[1]) < np.array(lengths)[:, None]
    seen = np.concatenate([kept, new], 1)
    return Columns(np.where(seen, sequences, PADDING)[:, :-1])
