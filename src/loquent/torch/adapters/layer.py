"""Linear layers with low-rank updates: what is computed, and what is merged; who is adapted is decided elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HALF = (torch.bfloat16, torch.float16)


class LowRank(nn.Module):
    """An update of some outputs of a linear layer: scaling * B (A x) (arXiv:2106.09685).

    Args:
        layer: the linear layer.
        start, stop: which of its outputs are updated.
        rank: how many rows A has.
        scaling: what B A is multiplied by.
        dropout: the share of inputs that is dropped in training.

    A is (rank, inputs) and B (stop - start, rank), in the layer's type, or float32 where that is a half type: small
    steps of training would be lost in it.
    """

    def __init__(self, layer: nn.Linear, start: int, stop: int, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        weight = layer.weight
        dtype = torch.float32 if weight.dtype in _HALF else weight.dtype
        self.start, self.stop, self.scaling = start, stop, scaling
        self.lora_A = nn.Parameter(torch.empty(rank, layer.in_features, dtype=dtype, device=weight.device))
        self.lora_B = nn.Parameter(torch.empty(stop - start, rank, dtype=dtype, device=weight.device))
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def initialize(self, initial: bool | str) -> None:
        """Draw A, and B too if `initial` is False; B is zero otherwise. It follows torch's generator."""
        if initial == "gaussian":
            self.lora_A.normal_(0.0, 1 / len(self.lora_A))
        else:
            nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        if initial is False:
            nn.init.kaiming_uniform_(self.lora_B, a=math.sqrt(5))
        else:
            self.lora_B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The update of the outputs (..., stop - start) for inputs (..., inputs)."""
        x = x.to(self.lora_A.dtype)
        if self.training:
            x = self.dropout(x)
        return F.linear(F.linear(x, self.lora_A) * self.scaling, self.lora_B)

    def update(self, dtype: torch.dtype) -> Tensor:
        """The update of the layer's rows, (stop - start, inputs), in a type."""
        return self.lora_B.to(dtype) @ self.lora_A.to(dtype) * self.scaling

    def extra_repr(self) -> str:
        return f"outputs {self.start} to {self.stop}, rank={len(self.lora_A)}, scaling={self.scaling:g}"


class AdaptedLinear(nn.Linear):
    """A linear layer with adapters, which a linear layer becomes where it is: `adapt`.

    Attributes:
        adapters: by the adapter's name, the updates by the names that the checkpoint has for the outputs' layers.
        active: the names of those whose updates are added when it is called.
        merged: the names of those whose updates are in its weight now.
        unmerged: its weight before that.
    """

    adapters: nn.ModuleDict
    active: tuple[str, ...]
    merged: tuple[str, ...]
    unmerged: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        return self.adapted(x, F.linear(x, self.weight, self.bias))

    def adapted(self, x: Tensor, product: Tensor) -> Tensor:
        """The outputs (..., outputs) from inputs (..., inputs) and the product of these with the weight alone.

        Where no gradients are kept, the updates are added to the product in place.
        """
        if not torch.is_grad_enabled():
            for part in self.updates(*self.active):
                product[..., part.start : part.stop] += part(x)
            return product
        for name in self.active:
            product = (product + self._update(self.updates(name), x)).to(product.dtype)
        return product

    def updates(self, *names: str) -> list[LowRank]:
        """The updates of some adapters, of each in the order of outputs."""
        found = [part for name in names if name in self.adapters for part in self.adapters[name].children()]
        return [part for part in found if isinstance(part, LowRank)]

    @torch.no_grad()
    def merge(self, names: tuple[str, ...]) -> tuple[float, float]:
        """Put updates into the weight, and keep what it was.

        The sum is taken in float32 (in float64 for a float64 weight) and rounded once.

        Returns:
            The squared norm of what was to be added, and of what rounding to the weight's type changed.
        """
        exact_dtype = torch.promote_types(self.weight.dtype, torch.float32)
        exact, added = self.weight.to(exact_dtype, copy=True), 0.0
        for part in self.updates(*names):
            update = part.update(exact_dtype)
            added += float(update.square().sum())
            exact[part.start : part.stop] += update
        self.merged, self.unmerged = names, self.weight.detach().clone()
        self.weight.copy_(exact)
        return added, float((self.weight - exact).square().sum())

    @torch.no_grad()
    def unmerge(self) -> None:
        """Make the weight what it was before merging, bit for bit."""
        if self.unmerged is not None:
            self.weight.copy_(self.unmerged)
        self.merged, self.unmerged = (), None

    def _update(self, parts: list[LowRank], x: Tensor) -> Tensor:
        pieces, position = [], 0
        for part in parts:
            pieces += self._nothing(x, part.start - position)
            pieces.append(part(x))
            position = part.stop
        pieces += self._nothing(x, self.out_features - position)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)

    @staticmethod
    def _nothing(x: Tensor, outputs: int) -> list[Tensor]:
        """The update of outputs that no part updates."""
        return [x.new_zeros(*x.shape[:-1], outputs)] if outputs else []


def adapt(layer: nn.Linear) -> AdaptedLinear:
    """The layer as one that can have adapters; it stays the same object, with its weight, its name and its hooks."""
    if not isinstance(layer, AdaptedLinear):
        layer.__class__ = AdaptedLinear  # as torch.nn.utils.parametrize does: whoever refers to it need not know
        assert isinstance(layer, AdaptedLinear)
        layer.adapters, layer.active, layer.merged, layer.unmerged = nn.ModuleDict(), (), (), None
    return layer


def restore(layer: AdaptedLinear) -> None:
    """Make it the plain linear layer again that it was; its adapters are gone, what is merged stays."""
    for name in ("adapters", "active", "merged", "unmerged"):
        delattr(layer, name)
    layer.__class__ = nn.Linear  # type: ignore[assignment]


def without_adapters(modules: list[nn.Module], layers: Iterable[AdaptedLinear]) -> list[nn.Module]:
    """Those of a model's modules that its adapters did not bring; `layers` are the adapted ones."""
    added = {id(module) for layer in layers for module in layer.adapters.modules()}
    return [module for module in modules if id(module) not in added] if added else modules


def adapted_layers(modules: Iterable[nn.Module]) -> list[AdaptedLinear]:
    """Those of some modules that can have adapters."""
    return [module for module in modules if isinstance(module, AdaptedLinear)]
