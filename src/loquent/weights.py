"""The weights that a composition needs: canonical names and shapes, which loading checks a checkpoint against.

Canonical layout: matrices are (outputs, inputs); `attention.qkv` stacks the rows of all query heads, then all key
heads, then all value heads; a gated MLP's `gate_up` stacks the gate's rows, then the up projection's.
"""

from __future__ import annotations

from math import isqrt, prod

from loquent.parts import (
    Attention,
    Block,
    CrossDomainExperts,
    Decoder,
    FeedForward,
    GatedMLP,
    Norm,
    RMSNorm,
    ScaledResidual,
)

Shapes = dict[str, tuple[int, ...]]

_SAMPLED_ROWS = 16


def decoder_weights(decoder: Decoder) -> Shapes:
    """Every tensor of the decoder without its head, by canonical name, in the order of computation."""
    width = decoder.width
    shapes: Shapes = {"tokens.weight": (decoder.vocabulary, width)}
    if decoder.learned_positions:
        shapes["positions.weight"] = (decoder.learned_positions.count, width)
    for index, block in enumerate(decoder.blocks):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in _block(block, width).items()}
    return shapes | _norm("norm", decoder.norm, width)


def head_weights(decoder: Decoder) -> Shapes:
    """The tensors of the language-model head; empty where it is tied to the token embedding and has no bias."""
    shapes: Shapes = {} if decoder.head.tied else {"head.weight": (decoder.vocabulary, decoder.width)}
    if decoder.head.bias:
        shapes["head.bias"] = (decoder.vocabulary,)
    return shapes


def sampled_rows(rows: int) -> list[int]:
    """The rows of a matrix by which it is told from another: a few all over it, the first and the last among them."""
    return sorted({index * (rows - 1) // (_SAMPLED_ROWS - 1) for index in range(_SAMPLED_ROWS)})


def multiplications(decoder: Decoder) -> int:
    """How many numbers of its matrices a token is multiplied with, all experts among them."""
    shapes = decoder_weights(decoder)
    shapes["head.weight"] = shapes.pop("tokens.weight")
    shapes.pop("positions.weight", None)
    return sum(prod(shape) for shape in shapes.values() if len(shape) > 1)


def _block(block: Block, width: int) -> Shapes:
    shapes = _norm("attention_norm", block.attention_norm, width) | _attention(block.attention, width)
    shapes |= _norm("mlp_norm", block.mlp_norm, width) | _feed_forward(block.mlp, width)
    if isinstance(block.residual, ScaledResidual):
        shapes |= {"attention_residual": (width,), "mlp_residual": (width,)}
    return shapes


def _attention(part: Attention, width: int) -> Shapes:
    rows = (part.heads + 2 * part.kv_heads) * part.head_dim
    shapes = _linear("attention.qkv", rows, width, part.qkv_bias)
    if part.query_key_norm:
        shapes |= {"attention.query_norm.weight": (part.head_dim,), "attention.key_norm.weight": (part.head_dim,)}
    if part.dynamic_mask:
        shapes["attention.dynamic_mask.decay"] = (part.kv_heads,)
        shapes |= _linear(
            "attention.dynamic_mask.step", part.kv_heads, part.kv_heads * part.head_dim, part.dynamic_mask.bias
        )
    return shapes | _linear("attention.output", width, part.heads * part.head_dim, part.output_bias)


def _feed_forward(part: FeedForward, width: int) -> Shapes:
    if isinstance(part, CrossDomainExperts):
        shapes = _feed_forward(part.shared, width)
        shapes["mlp.router.weight"] = (2 * isqrt(part.experts), width)
        return shapes | {"mlp.expert_down.weight": (part.experts, width), "mlp.expert_up.weight": (part.experts, width)}
    if isinstance(part, GatedMLP):
        shapes = _linear("mlp.gate_up", 2 * part.width, width, part.bias)
    else:
        shapes = _linear("mlp.up", part.width, width, part.bias)
    if part.activation == "prelu":
        shapes["mlp.activation.weight"] = (1,)
    return shapes | _linear("mlp.down", width, part.width, part.bias)


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | {f"{name}.bias": (outputs,)} if bias else shapes


def _norm(name: str, norm: Norm, width: int) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (width,)}
    return shapes if isinstance(norm, RMSNorm) else shapes | {f"{name}.bias": (width,)}
