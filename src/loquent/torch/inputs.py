"""From the padded arguments of `forward` to packed tokens and back; checks every argument before work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache.faces import PADDING, UNKNOWN, Cache
from loquent.errors import ArgumentError, ContextLengthError
from loquent.parts import Decoder


@dataclass(frozen=True, eq=False)
class Packed:
    """The tokens of a padded batch (rows, columns) without its padding."""

    tokens: Tensor  # ids (tokens,) or embeddings (tokens, width)
    mask: NDArray[np.bool_]  # (rows, columns): where a token is
    past: NDArray[np.bool_]  # (rows, columns of the cache): where one was
    index: Tensor | None  # (tokens,): each token's place in the flattened batch; None: there is no padding
    positions: Tensor | None  # (tokens,), where they were given
    spans: list[int]  # the longest position of each row, and one
    token_types: Tensor | None  # (tokens,)
    ids: NDArray[np.int64]  # (rows, columns), for a cache to remember: PADDING, or UNKNOWN, where there is no id

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.mask.shape[0], self.mask.shape[1]

    def unpack(self, packed: Tensor) -> Tensor:
        """Packed results (tokens, ...) as (rows, columns, ...), with zeros where there is padding."""
        rest = packed.shape[1:]
        if self.index is None:
            return packed.view(*self.shape, *rest)
        padded = packed.new_zeros(self.mask.size, *rest).index_copy(0, self.index, packed)
        return padded.view(*self.shape, *rest)


def check_tensors(**arguments: Any) -> None:
    """Refuse arguments of `forward` that are neither tensors nor None.

    Raises:
        ArgumentError: it names the first of them, and how to get a tensor.
    """
    for name, value in arguments.items():
        if value is None or isinstance(value, Tensor):
            continue
        if isinstance(value, str):
            remedy = 'Texts become ids by the tokenizer: model(**tokenizer(text, return_tensors="pt")).'
        elif isinstance(value, Mapping):
            remedy = "Unpack what the tokenizer returned: model(**inputs)."
        else:
            remedy = 'Pass return_tensors="pt" to the tokenizer, or make one by torch.tensor([[...]]).'
        raise ArgumentError(f"{name} is a {type(value).__name__}, not a tensor. {remedy}")


def pack(
    decoder: Decoder,
    *,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    token_type_ids: Tensor | None,
    cache: Cache | None,
    device: torch.device,
) -> Packed:
    """Check and pack the arguments of `forward` onto the model's device; see there for what they are.

    Raises:
        ArgumentError: an argument that cannot work.
        ContextLengthError: positions past those that the model learned.
    """
    tokens = _check_tokens(decoder, input_ids, inputs_embeds).to(device)
    shape = (tokens.shape[0], tokens.shape[1])
    past = cache.columns.seen if cache is not None and cache.get_seq_length() else np.zeros((shape[0], 0), np.bool_)
    mask = _check_mask(attention_mask, shape, past)
    index = None if mask.all() else torch.from_numpy(np.flatnonzero(mask)).to(tokens.device)
    packed = _take(tokens, index)
    if input_ids is not None:
        _check_ids("input_ids", packed, decoder.vocabulary)
    placed = None if position_ids is None else position_ids.to(device)
    positions, spans = _check_positions(decoder, placed, mask, past, index)
    types = None if token_type_ids is None else _check_types(decoder, token_type_ids.to(device), shape, index)
    ids = np.full(shape, UNKNOWN, np.int64)
    if input_ids is not None and types is None and _are_counted(positions, past, mask):
        ids = input_ids.detach().cpu().numpy().astype(np.int64)
    return Packed(packed, mask, past, index, positions, spans, types, np.where(mask, ids, PADDING))


def _take(padded: Tensor, index: Tensor | None) -> Tensor:
    flat = padded.flatten(0, 1)
    return flat if index is None else flat.index_select(0, index)


def _check_tokens(decoder: Decoder, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise ArgumentError(f"Pass one of input_ids and inputs_embeds; {given} was given.")
    if input_ids is not None:
        if input_ids.dim() != 2 or input_ids.is_floating_point() or input_ids.dtype == torch.bool:
            raise ArgumentError(
                f"input_ids must be integers of shape (batch, length), not {input_ids.dtype} of shape "
                f"{tuple(input_ids.shape)}. One row needs a dimension of its own: input_ids[None]."
            )
        tokens = input_ids
    else:
        assert inputs_embeds is not None
        if inputs_embeds.dim() != 3 or inputs_embeds.shape[2] != decoder.width or not inputs_embeds.is_floating_point():
            raise ArgumentError(
                f"inputs_embeds must be numbers of shape (batch, length, {decoder.width}), not {inputs_embeds.dtype} "
                f"of shape {tuple(inputs_embeds.shape)}."
            )
        tokens = inputs_embeds
    if 0 in tokens.shape:
        name = "input_ids" if input_ids is not None else "inputs_embeds"
        raise ArgumentError(f"{name} has shape {tuple(tokens.shape)}: there is nothing to read. Pass a token or more.")
    return tokens


def _check_ids(name: str, ids: Tensor, vocabulary: int) -> None:
    low, high = torch.stack(torch.aminmax(ids)).tolist() if len(ids) else (0, 0)
    if low < 0 or high >= vocabulary:
        raise ArgumentError(
            f"{name} has the id {low if low < 0 else high}, but the model's vocabulary is 0 to {vocabulary - 1}. Is "
            "the tokenizer this model's? Padding may have any id if attention_mask is 0 there."
        )


def _check_mask(attention_mask: Tensor | None, shape: tuple[int, int], past: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the new columns hold a token, (rows, columns)."""
    if len(past) != shape[0]:
        raise ArgumentError(
            f"past_key_values holds {len(past)} rows, but the input has {shape[0]}. Pass the cache of this batch."
        )
    if attention_mask is None:
        return np.ones(shape, np.bool_)
    wanted = (shape[0], past.shape[1] + shape[1])
    if tuple(attention_mask.shape) != wanted:
        seen = f" ({past.shape[1]} columns in past_key_values and {shape[1]} new)" if past.shape[1] else ""
        raise ArgumentError(
            f"attention_mask has shape {tuple(attention_mask.shape)} where {wanted} is needed{seen}: a 1 for each "
            "token and a 0 for padding, per row and column."
        )
    mask = attention_mask.detach().cpu()
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ArgumentError("attention_mask may hold only 0 (padding) and 1 (a token).")
    whole: NDArray[np.bool_] = (mask != 0).numpy()
    if not whole.any(1).all():
        raise ArgumentError(f"attention_mask has no token in row {int(np.argmin(whole.any(1)))}. Leave such rows out.")
    if not np.array_equal(whole[:, : past.shape[1]], past):
        raise ArgumentError(
            "attention_mask differs from the one that past_key_values was filled with. Repeat its columns, then the "
            "new ones."
        )
    return whole[:, past.shape[1] :]


def _check_positions(
    decoder: Decoder,
    position_ids: Tensor | None,
    mask: NDArray[np.bool_],
    past: NDArray[np.bool_],
    index: Tensor | None,
) -> tuple[Tensor | None, list[int]]:
    limit = decoder.learned_positions.count if decoder.learned_positions else None
    if position_ids is None:
        spans = (past.sum(1) + mask.sum(1)).tolist()
        _check_limit(max(spans), limit)
        return None, spans
    wanted = (len(mask), mask.shape[1])
    if position_ids.is_floating_point() or tuple(position_ids.shape) not in {wanted, (1, wanted[1])}:
        raise ArgumentError(
            f"position_ids must be integers of shape {wanted}, not {position_ids.dtype} of shape "
            f"{tuple(position_ids.shape)}."
        )
    padded = position_ids.expand(wanted)
    positions = _take(padded, index)
    real = padded if index is None else padded.masked_fill(~torch.from_numpy(mask).to(padded.device), 0)
    if len(positions) and int(positions.min()) < 0:
        raise ArgumentError(f"position_ids has {int(positions.min())}; positions start at 0.")
    spans = (real.amax(1) + 1).tolist()
    _check_limit(max(spans), limit)
    return positions, spans


def _are_counted(positions: Tensor | None, past: NDArray[np.bool_], mask: NDArray[np.bool_]) -> bool:
    """Whether the packed positions are those that follow from the tokens, as without `position_ids`."""
    if positions is None:
        return True
    counted = past.sum(1, keepdims=True) + mask.cumsum(1) - 1
    return bool((positions.cpu().numpy() == counted[mask]).all())


def _check_limit(span: int, limit: int | None) -> None:
    if limit is not None and span > limit:
        raise ContextLengthError(
            f"The input reaches position {span - 1}, but the model has learned positions 0 to {limit - 1} only. "
            "Shorten the input."
        )


def _check_types(decoder: Decoder, types: Tensor, shape: tuple[int, int], index: Tensor | None) -> Tensor:
    if tuple(types.shape) != shape or types.is_floating_point():
        raise ArgumentError(f"token_type_ids must be integers of shape {shape}, not {tuple(types.shape)}.")
    if decoder.learned_positions is None:
        raise ArgumentError("token_type_ids is for models with learned positions (GPT-2 and its relatives). Omit it.")
    packed = _take(types, index)
    _check_ids("token_type_ids", packed, decoder.vocabulary)
    return packed
