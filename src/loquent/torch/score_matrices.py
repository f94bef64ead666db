"""Attention as whole matrices of scores with a backward pass of its own: how gradients are had fastest on a CPU.

PyTorch's fused attention on CPUs spends several times as long going backward, and cannot give a bias gradients, which
Doge's dynamic mask needs. Here both ways are a few matrix products around one softmax; the weights, in the values'
type, are all that is kept in between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loquent import parts

# Calls with more scores than this leave too much in memory for going backward.
_MOST_SCORES = 1 << 28


def can_attend(part: parts.Attention, queries: Tensor, keys: Tensor, dropout: float) -> bool:
    """Whether this is the way to attend: gradients are wanted, on a CPU, of something that fits."""
    if not (torch.is_grad_enabled() and queries.requires_grad) or queries.device.type != "cpu" or dropout:
        return False
    return len(queries) * part.heads * queries.shape[1] * keys.shape[1] <= _MOST_SCORES


def attend_by_matrices(
    part: parts.Attention, queries: Tensor, keys: Tensor, values: Tensor, added: Tensor | None, mask: Tensor | None
) -> Tensor:
    """What each query reads, (count, new, heads, head_dim), in the values' type.

    Args:
        part: the scale, and how many heads there are.
        queries: (count, new, heads, head_dim).
        keys, values: (count, size, kv_heads, head_dim).
        added: numbers added to the scores of a key, (count, size, kv_heads), with gradients.
        mask: what else is added, such as minus infinity, (count or 1, kv_heads or 1, new or 1, size), without.
    """
    result: Tensor = _ScoreMatrices.apply(part.scale, queries, keys, values, added, mask)  # type: ignore[no-untyped-call]
    return result


class _ScoreMatrices(torch.autograd.Function):
    """Query heads that share a key-value head are rows of one product."""

    @staticmethod
    def forward(
        ctx: Any, scale: float, queries: Tensor, keys: Tensor, values: Tensor, added: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        count, size, kv_heads, _ = keys.shape
        dtype, exact = values.dtype, torch.promote_types(values.dtype, torch.float32)
        # (count * kv_heads, groups * new, head_dim) and (count * kv_heads, size, head_dim); the scale goes into the
        # queries, which are fewer numbers than the scores.
        asked = _rows((queries * scale).to(dtype), kv_heads)
        read, meant = _rows(keys.to(dtype), kv_heads), _rows(values, kv_heads)
        scores = torch.bmm(asked, read.transpose(1, 2)).view(count, kv_heads, -1, queries.shape[1], size).to(exact)
        if added is not None:
            scores.add_(added.to(exact).transpose(1, 2)[:, :, None, None, :])
        if mask is not None:
            scores.add_(mask.unsqueeze(2))
        weights = scores.softmax(-1).to(dtype)  # (count, kv_heads, groups, new, size)
        result = torch.bmm(weights.view(len(asked), -1, size), meant)
        ctx.save_for_backward(asked, read, meant, weights)
        ctx.scale, ctx.heads, ctx.types = scale, queries.shape[2], (queries.dtype, keys.dtype)
        ctx.added = None if added is None else added.dtype
        return _heads(result, count, queries.shape[2], queries.shape[1])

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        asked, read, meant, weights = ctx.saved_tensors
        count, kv_heads, _, new, size = weights.shape
        wanted = _rows(wanted.to(weights.dtype), kv_heads)
        flat = weights.view(len(asked), -1, size)
        to_values = torch.bmm(flat.transpose(1, 2), wanted)
        exact = torch.promote_types(weights.dtype, torch.float32)
        to_weights = torch.bmm(wanted, meant.transpose(1, 2)).view_as(weights).to(exact)
        to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights.to(exact), -1, exact)
        to_added = None if ctx.added is None else to_scores.sum((2, 3)).transpose(1, 2).to(ctx.added)
        slopes = to_scores.to(weights.dtype).view_as(flat)
        to_queries = _heads(torch.bmm(slopes, read), count, ctx.heads, new).to(ctx.types[0]) * ctx.scale
        to_keys = _heads(torch.bmm(slopes.transpose(1, 2), asked), count, kv_heads, size).to(ctx.types[1])
        return None, to_queries, to_keys, _heads(to_values, count, kv_heads, size), to_added, None


def _rows(heads: Tensor, kv_heads: int) -> Tensor:
    """(count, tokens, heads, head_dim) as (count * kv_heads, heads / kv_heads * tokens, head_dim)."""
    count, tokens, number, size = heads.shape
    split = heads.view(count, tokens, kv_heads, number // kv_heads, size).permute(0, 2, 3, 1, 4)
    return split.reshape(count * kv_heads, -1, size)


def _heads(rows: Tensor, count: int, heads: int, tokens: int) -> Tensor:
    """What `_rows` made, as it was."""
    split = rows.view(count, heads, tokens, -1)
    return split.transpose(1, 2)
