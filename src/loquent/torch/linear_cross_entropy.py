"""The cross entropy of a head's logits without the logits: they are made, used and dropped a chunk of rows at a time.

A vocabulary's logits are the largest tensors of a training step by far. Their gradient is known as soon as they are, so
that both products of the backward pass are done at once, while the chunk is in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# How many logits a chunk has: on a CPU what stays in the caches, on a GPU what keeps it busy. Fewer rows than `_ROWS`
# would add to the weight's gradient too often, which is as large as the weight.
_CPU_LOGITS, _GPU_LOGITS = 1 << 22, 1 << 27
_ROWS = 512


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """The sum of the cross entropies, in float32, of `targets` (rows,) by the logits `hidden @ weight.T + bias`.

    Args:
        hidden: (rows, width); what the products are computed in is autocast's type where that is on, else its own.
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.
        targets: an id for each row.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    result: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, dtype)  # type: ignore[no-untyped-call]
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        inputs, matrix = hidden.detach().to(dtype), weight.detach().to(dtype)
        wanted = ctx.needs_input_grad
        to_hidden = torch.empty_like(inputs) if wanted[0] else None
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(_ROWS, (_CPU_LOGITS if hidden.device.type == "cpu" else _GPU_LOGITS) // len(matrix))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(inputs), rows):
                some, answers = inputs[start : start + rows], targets[start : start + rows].unsqueeze(1)
                logits = torch.mm(some, matrix.t()).float()
                if bias is not None:
                    logits = logits + bias.float()
                total += torch.logsumexp(logits, 1).sum() - logits.gather(1, answers).sum()
                if not any(wanted):
                    continue
                slopes = logits.softmax(1).scatter_add_(1, answers, logits.new_full(answers.shape, -1.0))
                if to_bias is not None:
                    to_bias += slopes.sum(0)
                slopes = slopes.to(dtype)
                if to_hidden is not None:
                    torch.mm(slopes, matrix, out=to_hidden[start : start + rows])
                if to_weight is not None:
                    if dtype == torch.float32:
                        to_weight.addmm_(slopes.t(), some)
                    else:
                        to_weight += torch.mm(slopes.t(), some)
        ctx.types = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.gradients = to_hidden, to_weight, to_bias
        return total

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.gradients = ctx.gradients, None
        if found is None:
            raise RuntimeError("Gradients of linear_cross_entropy() can be asked for once: they are scaled in place.")
        gradients = [
            None if gradient is None else gradient.mul_(wanted).to(dtype) for gradient, dtype in zip(found, ctx.types)
        ]
        return (*gradients, None, None)
