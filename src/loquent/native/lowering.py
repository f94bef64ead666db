"""From a composition and its weights to a plan: the flat list of operations that a step runs; nothing runs here.

Each part lowers by its type, wherever it stands. Norms, activations, biases and residuals are no operations of their
own: they are done to a product's rows on their way in or out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from loquent import parts
from loquent.errors import NativeError
from loquent.native.extension import core
from loquent.native.store import LayerShape
from loquent.native.weights import Weights

if TYPE_CHECKING:
    from loquent.native._core import Matrix, Norm, Plan

_HIDDEN = "hidden"


@dataclass(frozen=True, eq=False)
class Lowered:
    """A plan, and what its backend must know of it."""

    plan: Plan
    rotaries: tuple[parts.Rotary, ...]  # the composition's rotary of each of the plan's
    layers: list[LayerShape]
    matrices: list[Matrix]


class _Residual(TypedDict):
    """How a product is added to what its target holds."""

    residual: bool
    decay: NDArray[np.float32] | None


def why_not(decoder: parts.Decoder) -> str | None:
    """Why a composition has no plan, in a few words; None where it has one."""
    if not decoder.incremental:
        return 'its experts are routed by "flattened" router logits'
    return None


def lower(decoder: parts.Decoder, weights: Weights) -> Lowered:
    """The plan of a composition over these weights.

    Raises:
        NativeError: the composition has no plan (see `why_not`), or the native core is not there.
    """
    why = why_not(decoder)
    if why:
        raise NativeError(
            f'The native core cannot run this model: {why}. Run it on PyTorch: pip install "loquent[torch]".'
        )
    lowering = _Lowering(decoder, weights)
    lowering.lower()
    layers = [
        LayerShape(part.kv_heads, part.head_dim, part.dynamic_mask is not None, part.window)
        for part in (block.attention for block in decoder.blocks)
    ]
    return Lowered(lowering.plan, tuple(lowering.rotaries), layers, list(lowering.matrices.values()))


@dataclass(eq=False)
class _Lowering:
    """A plan in the making."""

    decoder: parts.Decoder
    weights: Weights
    rotaries: dict[parts.Rotary, int] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    _buffers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.plan: Plan = core().Plan(self.decoder.vocabulary, self.decoder.width)

    def lower(self) -> None:
        """Write all operations."""
        decoder, plan = self.decoder, self.plan
        tokens = self._matrix("tokens")
        plan.embed(tokens, self._matrix("positions") if decoder.learned_positions else None)
        plan.keep(0)
        for layer, block in enumerate(decoder.blocks):
            if layer:
                plan.keep(layer)
            self._block(block, layer)
        head = tokens if decoder.head.tied else self._matrix("head")
        bias = self.weights.vector("head.bias") if decoder.head.bias else None
        plan.head(head, bias, self._norm("norm", decoder.norm), last_layer=len(decoder.blocks))

    def _block(self, block: parts.Block, layer: int) -> None:
        name = f"blocks.{layer}"
        read = self._attention(block, name, layer)
        if layer == len(self.decoder.blocks) - 1:
            self.plan.narrow([_HIDDEN, read])  # what nobody asked for has left its keys and values, and is done
        if isinstance(block.residual, parts.ParallelResidual):
            # Both branches read the block's input, so the second has read it before the first is added.
            inner = self._enter_mlp(block, name)
            self._leave_attention(block, name, read)
        else:
            self._leave_attention(block, name, read)
            inner = self._enter_mlp(block, name)
        self._leave_mlp(block, name, inner)

    def _attention(self, block: parts.Block, name: str, layer: int) -> str:
        """From "hidden" to what the heads read; returns the buffer that holds it."""
        part, weights, own = block.attention, self.weights, f"{name}.attention"
        qkv = self._buffer("qkv", (part.heads + 2 * part.kv_heads) * part.head_dim)
        read = self._buffer("read", part.heads * part.head_dim)
        norm = self._norm(f"{name}.attention_norm", block.attention_norm)
        self.plan.linear(_HIDDEN, qkv, self._matrix(f"{own}.qkv"), self._bias(f"{own}.qkv", part.qkv_bias), norm=norm)
        more: dict[str, Any] = {}
        if part.rotary:
            more["rotary"] = self._rotary(part.rotary)
        if part.query_key_norm:
            more |= {f"{side}_norm": weights.vector(f"{own}.{side}_norm.weight") for side in ("query", "key")}
            more["norm_epsilon"] = part.query_key_norm.epsilon
        if part.dynamic_mask:
            more |= {"keep": part.dynamic_mask.keep, "mask_decay": weights.vector(f"{own}.dynamic_mask.decay")}
            more["mask_step"] = weights.vector(f"{own}.dynamic_mask.step.weight").reshape(-1)
            more["mask_bias"] = self._bias(f"{own}.dynamic_mask.step", part.dynamic_mask.bias)
        more |= {"heads": part.heads, "kv_heads": part.kv_heads, "head_dim": part.head_dim}
        self.plan.attention(qkv, read, layer=layer, scale=part.scale, window=part.window or 0, **more)
        return read

    def _leave_attention(self, block: parts.Block, name: str, read: str) -> None:
        own, bias = f"{name}.attention.output", block.attention.output_bias
        added = self._added(block, f"{name}.attention_residual")
        self.plan.linear(read, _HIDDEN, self._matrix(own), self._bias(own, bias), **added)

    def _enter_mlp(self, block: parts.Block, name: str) -> str:
        """From "hidden" to what is activated; returns the buffer that holds it."""
        part, norm = block.mlp, self._norm(f"{name}.mlp_norm", block.mlp_norm)
        if isinstance(part, parts.CrossDomainExperts):
            normed = self._buffer("normed", self.decoder.width)
            self.plan.normalize(_HIDDEN, normed, norm)
            routed = self._buffer("routed", 2 * isqrt(part.experts))
            self.plan.linear(normed, routed, self._matrix(f"{name}.mlp.router"))
            return self._projected(part.shared, name, normed, None)
        return self._projected(part, name, _HIDDEN, norm)

    def _projected(self, part: parts.MLP | parts.GatedMLP, name: str, source: str, norm: Norm | None) -> str:
        gated = isinstance(part, parts.GatedMLP)
        own = f"{name}.mlp.gate_up" if gated else f"{name}.mlp.up"
        inner = self._buffer("inner", 2 * part.width if gated else part.width)
        self.plan.linear(source, inner, self._matrix(own), self._bias(own, part.bias), norm=norm)
        return inner

    def _leave_mlp(self, block: parts.Block, name: str, inner: str) -> None:
        part, own = block.mlp, f"{name}.mlp"
        dense = part.shared if isinstance(part, parts.CrossDomainExperts) else part
        slope = float(self.weights.vector(f"{own}.activation.weight")[0]) if dense.activation == "prelu" else 0.0
        self.plan.linear(
            inner,
            _HIDDEN,
            self._matrix(f"{own}.down"),
            self._bias(f"{own}.down", dense.bias),
            activation=dense.activation,
            slope=slope,
            gated=isinstance(dense, parts.GatedMLP),
            **self._added(block, f"{name}.mlp_residual"),
        )
        if isinstance(part, parts.CrossDomainExperts):
            self.plan.experts(
                self._buffer("normed", self.decoder.width),
                self._buffer("routed", 2 * isqrt(part.experts)),
                _HIDDEN,
                down=self._matrix(f"{own}.expert_down"),
                up=self._matrix(f"{own}.expert_up"),
                chosen=part.chosen,
                normalized=part.normalized,
                activation=dense.activation,
                slope=slope,
            )

    def _added(self, block: parts.Block, name: str) -> _Residual:
        scaled = isinstance(block.residual, parts.ScaledResidual)
        return {"residual": True, "decay": self.weights.vector(name) if scaled else None}

    def _norm(self, name: str, part: parts.Norm) -> Norm:
        bias = self._bias(name, isinstance(part, parts.LayerNorm))
        norm: Norm = core().Norm(self.weights.vector(f"{name}.weight"), bias, part.epsilon)
        return norm

    def _matrix(self, name: str) -> Matrix:
        if name not in self.matrices:
            self.matrices[name] = self.weights.matrix(f"{name}.weight")
        return self.matrices[name]

    def _bias(self, name: str, present: bool) -> NDArray[np.float32] | None:
        return self.weights.vector(f"{name}.bias") if present else None

    def _buffer(self, role: str, width: int) -> str:
        """A buffer of that width: blocks take turns with it, and those of other shapes have their own."""
        name = f"{role} {width}"
        if name not in self._buffers:
            self._buffers.add(name)
            self.plan.buffer(name, width)
        return name

    def _rotary(self, part: parts.Rotary) -> int:
        if part not in self.rotaries:
            self.rotaries[part] = self.plan.rotary()
        return self.rotaries[part]
