"""Norms and feed-forward layers as modules whose parameters have the canonical names; attention is elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent import parts
from loquent.torch.activations import ACTIVATIONS, Activation

Linears = Callable[[nn.Module, Tensor], Tensor]
"""How a linear layer is applied: by calling it, or with a copy of its weight laid out for speed (`torch.packed`)."""


def call_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer as torch does, hooks and all."""
    result: Tensor = layer(x)
    return result


class RMSNorm(nn.Module):
    """`parts.RMSNorm`; the mean square is taken in float32 whatever the dtype."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast a product comes in bfloat16, and goes out as exact as the weight.
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.epsilon)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, epsilon={self.epsilon}"


def make_norm(part: parts.Norm, width: int) -> nn.Module:
    """The module of a norm."""
    if isinstance(part, parts.RMSNorm):
        return RMSNorm(width, part.epsilon)
    return nn.LayerNorm(width, eps=part.epsilon)


def make_embedding(count: int, width: int) -> nn.Embedding:
    """An embedding whose weight has no values yet."""
    # nn.Embedding(count, width) would draw them: on the meta device that imports a second's worth of modules.
    return nn.Embedding(count, width, _weight=torch.empty(count, width))


class _Activated(nn.Module):
    """What the feed-forward layers share: an activation, which is a module of its own only where it has a weight."""

    _function: Activation

    def _set_activation(self, name: str) -> None:
        if name == "prelu":
            self.activation = nn.PReLU()
        else:
            self._function = ACTIVATIONS[name]
        self._name = name

    def _activate(self, x: Tensor) -> Tensor:
        if self._name == "prelu":
            activated: Tensor = self.activation(x)
            return activated
        return self._function(x)


class MLP(_Activated):
    """`parts.MLP`."""

    def __init__(self, part: parts.MLP, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, part.width, part.bias)
        self.down = nn.Linear(part.width, width, part.bias)
        self._set_activation(part.activation)

    def forward(self, x: Tensor, linear: Linears = call_layer) -> Tensor:
        return linear(self.down, self._activate(linear(self.up, x)))


class GatedMLP(_Activated):
    """`parts.GatedMLP`; the gate's rows come before the up projection's in one matrix."""

    def __init__(self, part: parts.GatedMLP, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * part.width, part.bias)
        self.down = nn.Linear(part.width, width, part.bias)
        self._set_activation(part.activation)

    def forward(self, x: Tensor, linear: Linears = call_layer) -> Tensor:
        gate, up = linear(self.gate_up, x).chunk(2, dim=-1)  # (tokens, MLP width) each
        return linear(self.down, self._activate(gate) * up)
