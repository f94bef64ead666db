"""Scaled dot-product attention over a group of sequences, in the cheapest form that its mask allows; has no weights.

Queries are (count, new, heads, head_dim), keys and values (count, size, kv_heads, head_dim), where query head h reads
key-value head `h // (heads // kv_heads)`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent import parts
from loquent.torch.keys import Block, JoinedKeys, Keys
from loquent.torch.score_matrices import attend_by_matrices, can_attend

# A block of queries whose scores would have more elements than this is attended in parts, unless gradients are wanted.
_SCORE_ELEMENTS = 1 << 24


def attend(
    part: parts.Attention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    where: Keys | JoinedKeys,
    *,
    mask_values: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What each query reads, (count, new, heads, head_dim).

    `mask_values` (count, size, kv_heads) are those of Doge's dynamic mask.
    """
    if can_attend(part, queries, keys, dropout):
        block = where.whole
        added = None if mask_values is None else block.cut(mask_values)
        mask = _mask(part, block, added)
        return attend_by_matrices(part, queries, block.cut(keys), block.cut(values), added, mask)
    if mask_values is None and where.causal:
        return _attention(part, queries, keys, values, None, is_causal=queries.shape[1] > 1, dropout=dropout)
    rows = max(1, _SCORE_ELEMENTS // (len(queries) * part.heads * where.size))
    blocks = [where.whole] if torch.is_grad_enabled() else where.blocks(rows)
    pieces = [
        _attention(
            part,
            queries[:, block.start : block.stop],
            block.cut(keys),
            block.cut(values),
            _bias(part, block, mask_values, queries.dtype),
            is_causal=False,
            dropout=dropout,
        )
        for block in blocks
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)


def attend_with_weights(
    part: parts.Attention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    where: Keys | JoinedKeys,
    *,
    mask_values: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`attend`, and the attention weights (count, heads, new, positions), of the positions from `where.first` on."""
    block, repeats = where.whole, part.heads // part.kv_heads
    read, meant = (block.cut(t).repeat_interleave(repeats, 2).transpose(1, 2) for t in (keys, values))
    scores = torch.matmul(queries.transpose(1, 2), read.transpose(2, 3)).float() * part.scale
    bias = _bias(part, block, mask_values, queries.dtype)
    if bias is not None:
        bias = bias if bias.shape[1] == 1 else bias.repeat_interleave(repeats, 1)
    weights = (scores if bias is None else scores + bias).softmax(-1).to(queries.dtype)
    weights = F.dropout(weights, dropout)
    return torch.matmul(weights, meant).transpose(1, 2), where.by_position(weights)


def select_keys(values: Tensor, visible: Tensor | None, keep: int) -> Tensor | None:
    """Which keys Doge's dynamic mask lets through: of more than `keep` visible ones the `keep` with the largest values,
    the most recent of equal ones (to a relative 2^-15).

    `values` is (..., new or 1, size), `visible` broadcasts to it; None stands for all.
    """
    if values.shape[-1] <= keep:
        return visible
    if visible is not None:
        values = torch.where(visible, values, float("-inf"))
    values = _rounded(values.detach())
    threshold = values.topk(keep, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    larger, equal = values > threshold, values == threshold
    if visible is not None:
        larger, equal = larger & visible, equal & visible
    places = keep - larger.sum(-1, keepdim=True)
    return larger | (equal & (equal.flip(-1).cumsum(-1).flip(-1) <= places))


def _rounded(values: Tensor) -> Tensor:
    """Float32 values without their last 8 bits, to compare by.

    Equal tokens have equal values in the first layer, but a product of other sizes rounds them otherwise, and how a
    text is cut into reads must not choose among them.
    """
    if values.dtype != torch.float32:
        return values
    return ((values.view(torch.int32) + 0x80) & ~0xFF).view(torch.float32)


def _bias(part: parts.Attention, block: Block, mask_values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is added to a block's scores, (count or 1, kv_heads or 1, queries or 1, keys)."""
    if mask_values is None or part.dynamic_mask is None:
        return block.bias(dtype)
    added = block.cut(mask_values).transpose(1, 2).unsqueeze(2)  # (count, kv_heads, 1, keys)
    visible = None if block.visible is None else block.visible.unsqueeze(1)
    chosen = select_keys(added, visible, part.dynamic_mask.keep)
    return added if chosen is None else torch.where(chosen, added, float("-inf"))


def _mask(part: parts.Attention, block: Block, mask_values: Tensor | None) -> Tensor | None:
    """What is added to a block's scores beside Doge's mask values: minus infinity where a query does not see a key."""
    if mask_values is None or part.dynamic_mask is None or mask_values.shape[1] <= part.dynamic_mask.keep:
        return block.bias(torch.float32)
    visible = None if block.visible is None else block.visible.unsqueeze(1)
    chosen = select_keys(mask_values.transpose(1, 2).unsqueeze(2), visible, part.dynamic_mask.keep)
    assert chosen is not None  # there are more keys than it keeps
    return torch.zeros(chosen.shape, device=chosen.device).masked_fill_(~chosen, float("-inf"))


def _attention(
    part: parts.Attention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    *,
    is_causal: bool,
    dropout: float,
) -> Tensor:
    count, new, heads, size = queries.shape
    kv_heads, groups = part.kv_heads, part.heads // part.kv_heads
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)  # (count, kv_heads, size, head_dim)
    if groups == 1:
        grouped = queries.transpose(1, 2)
    elif new == 1:
        # One token's query heads that share a key-value head are as good as several queries of that head.
        grouped = queries.view(count, kv_heads, groups, size)
    else:
        grouped = queries.view(count, new, kv_heads, groups, size).permute(0, 2, 3, 1, 4)
        grouped = grouped.reshape(count * kv_heads, groups, new, size)
        keys, values = (t.reshape(count * kv_heads, 1, *t.shape[2:]).expand(-1, groups, -1, -1) for t in (keys, values))
        if bias is not None:
            bias = bias.expand(count, kv_heads, *bias.shape[2:]).reshape(count * kv_heads, 1, *bias.shape[2:])
    read = F.scaled_dot_product_attention(grouped, keys, values, bias, dropout, is_causal, scale=part.scale)
    if groups == 1:
        return read.transpose(1, 2)
    if new == 1:
        return read.reshape(count, 1, heads, size)
    return read.view(count, kv_heads, groups, new, size).permute(0, 3, 1, 2, 4).reshape(count, new, heads, size)
