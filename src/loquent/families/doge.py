"""Doge (arXiv:2412.11834): attention under a dynamic mask, learned residual scales, and a mixture of tiny experts.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/doge, and `router_layout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any, Literal

from loquent.config.rope import RotaryConfig
from loquent.families import Family
from loquent.families.checks import (
    check_activation,
    check_counts,
    check_divides,
    check_epsilon,
    check_rates,
    refuse,
    rotary_part,
)
from loquent.families.layouts import llama_attention, llama_mlp, norm
from loquent.names import NameTable, Piece, linear
from loquent.parts import (
    Attention,
    Block,
    CrossDomainExperts,
    Decoder,
    DynamicMask,
    FeedForward,
    GatedMLP,
    LanguageHead,
    RMSNorm,
    ScaledResidual,
)
from loquent.rotary import reach


class _BesideDoge(RotaryConfig, shared=True):
    """Fields that the documented config does not have, and that are saved only where they differ from the default."""

    head_dim: int | None = None
    router_layout: Literal["per_token", "flattened"] = "per_token"


class DogeConfig(_BesideDoge):
    """What a Doge is; `num_key_value_heads` and `head_dim` are derived where they are None.

    `router_layout` says how the experts' router is read (`is_moe`). Its logits are two halves for each token, one for
    each axis of the product keys. "per_token", the default, splits each token's logits, so that a token's result
    depends on nothing after it: reading token by token, in chunks or in a batch gives the same. "flattened" splits the
    logits of the row as a whole, in which a token takes another's half. That is what transformers computes in a full
    forward pass, though not in its own generation after the prompt, where each step reads a single token and both are
    the same. A model trained by full forward passes of transformers therefore wants "flattened", and pays with reading
    the whole sequence again for every token.
    """

    model_type = "doge"

    vocab_size: int = 32768
    hidden_size: int = 1024
    intermediate_size: int = 2048
    num_hidden_layers: int = 32
    hidden_dropout: float = 0.0
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    mlp_bias: bool = False
    sliding_window: int | None = None
    keep_window_size: int = 2048
    is_moe: bool = False
    num_experts: int = 16384
    num_experts_per_tok: int = 64
    norm_topk_prob: bool = False
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def validate(self) -> None:
        if self.head_dim is None:
            check_divides(self, "hidden_size", "num_attention_heads")
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        check_counts(self, "head_dim", "num_key_value_heads", "sliding_window", "keep_window_size")
        check_divides(self, "num_attention_heads", "num_key_value_heads")
        check_activation(self, "hidden_act")
        check_rates(self, "hidden_dropout", "attention_dropout")
        check_epsilon(self, "rms_norm_eps")
        rotary_part(self, _head_dim(self))
        if self.is_moe:
            self._check_experts()

    def _check_experts(self) -> None:
        check_counts(self, "num_experts", "num_experts_per_tok")
        if self.num_experts > 2**26:
            raise refuse(self, "num_experts", "is absurd. Use a square number up to 67,108,864.")
        found = isqrt(self.num_experts) ** 2
        if self.num_experts_per_tok > found:
            raise refuse(self, "num_experts_per_tok", f"is more than the {found} experts that product keys can find.")


def compose(config: DogeConfig) -> Decoder:
    """The composition that the config describes."""
    head_dim, rms_norm = _head_dim(config), RMSNorm(config.rms_norm_eps)
    rotary = rotary_part(config, head_dim)
    block = Block(
        attention_norm=rms_norm,
        attention=Attention(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads or config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            rotary=rotary,
            window=config.sliding_window,
            query_key_norm=rms_norm,
            dynamic_mask=DynamicMask(config.keep_window_size, bias=config.attention_bias),
            dropout=config.attention_dropout or 0.0,
        ),
        mlp_norm=rms_norm,
        mlp=_feed_forward(config),
        residual=ScaledResidual(),
        dropout=config.hidden_dropout,
    )
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        blocks=(block,) * config.num_hidden_layers,
        norm=rms_norm,
        head=LanguageHead(tied=config.tie_word_embeddings),
        max_positions=reach(rotary),
    )


def _head_dim(config: DogeConfig) -> int:
    return config.head_dim or config.hidden_size // config.num_attention_heads


def _feed_forward(config: DogeConfig) -> FeedForward:
    shared = GatedMLP(config.intermediate_size, config.hidden_act, config.mlp_bias)
    if not config.is_moe:
        return shared
    return CrossDomainExperts(
        shared=shared,
        experts=config.num_experts,
        chosen=config.num_experts_per_tok,
        normalized=config.norm_topk_prob,
        routing=config.router_layout,
    )


def names(config: DogeConfig) -> NameTable:
    """What checkpoints call the tensors."""
    return NameTable(tuple(_pieces(compose(config))), dropped=(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\..*",))


def _pieces(decoder: Decoder) -> Iterator[Piece]:
    yield Piece("embed_tokens.weight", "tokens.weight")
    for layer, block in enumerate(decoder.blocks):
        theirs, ours = f"layers.{layer}", f"blocks.{layer}"
        yield from norm(f"{theirs}.input_layernorm", f"{ours}.attention_norm", block.attention_norm)
        yield from _attention(f"{theirs}.self_attn", ours, block.attention)
        yield Piece(f"{theirs}.input_residual", f"{ours}.attention_residual")
        yield from norm(f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norm", block.mlp_norm)
        yield from _mlp(f"{theirs}.mlp", ours, block.mlp)
        yield Piece(f"{theirs}.post_attention_residual", f"{ours}.mlp_residual")
    yield from norm("norm", "norm", decoder.norm)
    yield Piece("lm_head.weight", "head.weight")


def _attention(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    assert part.dynamic_mask is not None
    yield from llama_attention(theirs, ours, part)
    for side in ("query", "key"):
        yield Piece(f"{theirs}.{side[0]}_norm.weight", f"{ours}.attention.{side}_norm.weight")
    yield Piece(f"{theirs}.A", f"{ours}.attention.dynamic_mask.decay")
    yield from linear(f"{theirs}.dt_proj", f"{ours}.attention.dynamic_mask.step", bias=part.dynamic_mask.bias)


def _mlp(theirs: str, ours: str, part: FeedForward) -> Iterator[Piece]:
    if isinstance(part, CrossDomainExperts):
        yield from llama_mlp(theirs, ours, part.shared)
        for name, own in (("router_gate", "router"), ("down_embed", "expert_down"), ("up_embed", "expert_up")):
            yield Piece(f"{theirs}.{name}.weight", f"{ours}.mlp.{own}.weight")
    else:
        assert isinstance(part, GatedMLP)
        yield from llama_mlp(theirs, ours, part)


FAMILY = Family("doge", DogeConfig, compose, names, prefix="model")
