"""The tensor names that several families share: GPT-2's way of naming a decoder's tensors, and Llama's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from loquent.names import Layout, Piece, linear, stacked
from loquent.parts import Attention, CrossDomainExperts, Decoder, FeedForward, GatedMLP, LayerNorm, Norm

Attend = Callable[[str, str, Attention], Iterator[Piece]]
"""The pieces of one layer's attention: from the checkpoint's prefix of the layer, ours, and the part."""


def gpt_pieces(decoder: Decoder, attend: Attend, mlp: Layout | None = None) -> Iterator[Piece]:
    """The pieces of a decoder named as GPT-2 is (`wte`, `wpe`, `h.0.ln_1`, ...), `mlp` laying out its MLPs."""
    yield Piece("wte.weight", "tokens.weight")
    yield Piece("wpe.weight", "positions.weight")
    for layer, block in enumerate(decoder.blocks):
        theirs, ours = f"h.{layer}", f"blocks.{layer}"
        yield from norm(f"{theirs}.ln_1", f"{ours}.attention_norm", block.attention_norm)
        yield from attend(theirs, ours, block.attention)
        yield from norm(f"{theirs}.ln_2", f"{ours}.mlp_norm", block.mlp_norm)
        yield from linear(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up", bias=True, layout=mlp)
        yield from activation(f"{theirs}.mlp.act", f"{ours}.mlp", block.mlp)
        yield from linear(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down", bias=True, layout=mlp)
    yield from norm("ln_f", "norm", decoder.norm)
    yield Piece("lm_head.weight", "head.weight")


def llama_attention(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    """The pieces of an attention layer kept in four projections."""
    rows = {"q_proj": part.heads, "k_proj": part.kv_heads, "v_proj": part.kv_heads}
    yield from stacked(
        ((f"{theirs}.{name}", heads * part.head_dim) for name, heads in rows.items()),
        f"{ours}.attention.qkv",
        bias=part.qkv_bias,
    )
    yield from linear(f"{theirs}.o_proj", f"{ours}.attention.output", bias=part.output_bias)


def llama_mlp(theirs: str, ours: str, part: GatedMLP) -> Iterator[Piece]:
    """The pieces of a gated MLP kept in three projections."""
    halves = ((f"{theirs}.{name}", part.width) for name in ("gate_proj", "up_proj"))
    yield from stacked(halves, f"{ours}.mlp.gate_up", bias=part.bias)
    yield from activation(f"{theirs}.act_fn", f"{ours}.mlp", part)
    yield from linear(f"{theirs}.down_proj", f"{ours}.mlp.down", bias=part.bias)


def norm(theirs: str, ours: str, part: Norm) -> Iterator[Piece]:
    """The pieces of a norm: a weight, and a bias where it has one."""
    yield from linear(theirs, ours, bias=isinstance(part, LayerNorm))


def activation(theirs: str, ours: str, part: FeedForward) -> Iterator[Piece]:
    """The piece of the one activation function that learns something."""
    shared = part.shared if isinstance(part, CrossDomainExperts) else part
    if shared.activation == "prelu":
        yield Piece(f"{theirs}.weight", f"{ours}.activation.weight")
