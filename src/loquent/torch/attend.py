"""Scaled dot-product attention over a group of sequences, in the cheapest form that its mask allows; has no weights.

Queries are (count, new, heads, head_dim), keys and values (count, size, kv_heads, head_dim), where query head h reads
key-value head `h // (heads // kv_heads)`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent import parts
from loquent.torch.groups import Keys

# A block of queries whose scores would have more elements than this is attended in parts, unless gradients are wanted.
_SCORE_ELEMENTS = 1 << 24


def attend(
    part: parts.Attention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    where: Keys,
    *,
    mask_values: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What each query reads, (count, new, heads, head_dim).

    `mask_values` (count, size, kv_heads) are those of Doge's dynamic mask.
    """
    if mask_values is None and where.causal:
        return _attention(part, queries, keys, values, None, is_causal=queries.shape[1] > 1, dropout=dropout)
    blocks = [
        _attention(
            part,
            queries[:, start:stop],
            keys[:, low:high],
            values[:, low:high],
            _bias(part, where, start, stop, low, high, mask_values, queries.dtype),
            is_causal=False,
            dropout=dropout,
        )
        for start, stop, low, high in _blocks(part, queries, where)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


def attend_with_weights(
    part: parts.Attention,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    where: Keys,
    *,
    mask_values: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`attend`, and the attention weights (count, heads, new, size)."""
    repeats = part.heads // part.kv_heads
    keys, values = (t.repeat_interleave(repeats, 2).transpose(1, 2) for t in (keys, values))
    scores = torch.matmul(queries.transpose(1, 2), keys.transpose(2, 3)).float() * part.scale
    bias = _bias(part, where, 0, queries.shape[1], 0, keys.shape[2], mask_values, queries.dtype)
    if bias is not None:
        bias = bias if bias.shape[1] == 1 else bias.repeat_interleave(repeats, 1)
    weights = (scores if bias is None else scores + bias).softmax(-1).to(queries.dtype)
    weights = F.dropout(weights, dropout)
    return torch.matmul(weights, values).transpose(1, 2), weights


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


def _blocks(part: parts.Attention, queries: Tensor, where: Keys) -> list[tuple[int, int, int, int]]:
    """Ranges of queries and of the keys that some of them see: (start, stop, low, high)."""
    count, new = queries.shape[:2]
    rows = max(1, _SCORE_ELEMENTS // (count * part.heads * where.size))
    if torch.is_grad_enabled() or rows >= new or len(set(zip(where.group.pasts, where.first))) > 1:
        return [(0, new, 0, where.size)]
    offset = where.group.pasts[0] - where.first[0]
    ranges = []
    for start in range(0, new, rows):
        stop = min(start + rows, new)
        low = 0 if where.window is None else max(0, offset + start - where.window + 1)
        ranges.append((start, stop, low, min(where.size, offset + stop)))
    return ranges


def _bias(
    part: parts.Attention,
    where: Keys,
    start: int,
    stop: int,
    low: int,
    high: int,
    mask_values: Tensor | None,
    dtype: torch.dtype,
) -> Tensor | None:
    """What is added to the scores, (count or 1, kv_heads or 1, stop - start or 1, high - low)."""
    if mask_values is None or part.dynamic_mask is None:
        bias = where.bias(start, stop, dtype)
        return bias if bias is None else bias[..., low:high]
    added = mask_values[:, low:high].transpose(1, 2).unsqueeze(2)  # (count, kv_heads, 1, keys)
    visible = where.visible(start, stop)
    visible = visible if visible is None else visible[..., low:high].unsqueeze(1)
    chosen = select_keys(added, visible, part.dynamic_mask.keep)
    return added if chosen is None else torch.where(chosen, added, float("-inf"))


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
