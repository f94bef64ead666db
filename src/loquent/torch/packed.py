"""Copies of weights in the layout that oneDNN multiplies fastest, made when first used and again when a weight changed.

On a CPU, torch's plain product of a few rows and a float32 matrix reads memory at a quarter of its speed. Measured on
two cores, GPT-2 124M's matrices take 22 to 29 ms for one token as they are and 8 to 13 ms packed; 512 tokens take half
the time. The cost is memory: a second copy of every matrix that is used, for as long as the backend lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.torch.adapters.layer import AdaptedLinear

# The layout is made for about so many rows: one made for a single row is half as fast for more, and no faster for one.
_TYPICAL_ROWS = 16
# One row times a matrix of fewer elements is faster plain: calling the packed product costs more than it saves.
_SMALL = 1 << 16


@dataclass(frozen=True, eq=False)
class _Packed:
    weight: Tensor
    source: Tensor  # shares the parameter's memory, so that no other tensor gets its address as long as this lives
    address: int
    version: int


class PackedLinears:
    """Applies linear layers of a CPU model with packed weights; whatever is not a plain `nn.Linear`, or one with
    adapters, is just called.

    A copy is thrown away when its parameter's address or version is no longer what it was when it was packed, as after
    an optimizer's step, loading a state or converting the model.
    """

    def __init__(self) -> None:
        self._packed: dict[nn.Linear, _Packed] = {}

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        if type(layer) not in (nn.Linear, AdaptedLinear) or layer._forward_hooks or layer._forward_pre_hooks:
            called: Tensor = layer(x)
            return called
        assert isinstance(layer, nn.Linear)
        product = self._product(layer, x)
        return layer.adapted(x, product) if isinstance(layer, AdaptedLinear) else product

    def _product(self, layer: nn.Linear, x: Tensor) -> Tensor:
        weight = layer.weight
        if (len(x) == 1 and weight.numel() < _SMALL) or weight.dtype != x.dtype or weight.is_inference():
            return F.linear(x, weight, layer.bias)
        packed = self._packed.get(layer)
        if packed is None or packed.address != weight.data_ptr() or packed.version != weight._version:
            packed = _Packed(_reorder(weight), weight.detach(), weight.data_ptr(), weight._version)
            self._packed[layer] = packed
        product: Tensor = _multiply()(x, packed.weight, layer.bias, "none", [], "")
        return product

    def forget_moved(self) -> None:
        """Free the copies of parameters that are elsewhere now, as after converting the model."""
        moved = [layer for layer, packed in self._packed.items() if packed.address != layer.weight.data_ptr()]
        for layer in moved:
            del self._packed[layer]

    def clear(self) -> None:
        """Free the copies."""
        self._packed.clear()

    @property
    def bytes(self) -> int:
        """The memory that the copies take, up to what the layout pads."""
        return sum(layer.weight.numel() * layer.weight.element_size() for layer in self._packed)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the packed product for this type on this machine's CPU, and it computes right."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight = torch.eye(16, dtype=dtype), torch.arange(256, dtype=dtype).view(16, 16) / 256
    try:
        product = _multiply()(x, _reorder(weight), None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):  # absent, another signature, or an unfit processor
        return False
    return torch.allclose(product, weight.T)


def _reorder(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TYPICAL_ROWS)
    return packed


@cache
def _multiply() -> Callable[..., Any]:
    # The overload itself: looking it up by name costs microseconds, in every layer of every step.
    operation: Callable[..., Any] = torch.ops.mkldnn._linear_pointwise.default
    return operation
