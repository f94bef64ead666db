"""Llama (arXiv:2302.13971, 2407.21783): rotary positions, RMS norms, gated MLPs, grouped-query attention.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/llama.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loquent.config.rope import RotaryConfig
from loquent.families import Family
from loquent.families.checks import (
    check_activation,
    check_counts,
    check_divides,
    check_epsilon,
    check_rates,
    rotary_part,
)
from loquent.families.layouts import llama_attention, llama_mlp, norm
from loquent.names import NameTable, Piece
from loquent.parts import Attention, Block, Decoder, GatedMLP, LanguageHead, RMSNorm
from loquent.rotary import reach


class LlamaConfig(RotaryConfig):
    """What a Llama is; `head_dim` and `num_key_value_heads` are derived where they are None.

    `pretraining_tp` is kept and has no effect: it reorders sums and changes no result.
    """

    model_type = "llama"

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pretraining_tp: int | None = 1
    tie_word_embeddings: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = False
    attention_dropout: float | None = 0.0
    mlp_bias: bool = False
    head_dim: int | None = None

    def validate(self) -> None:
        if self.head_dim is None:
            check_divides(self, "hidden_size", "num_attention_heads")
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        check_counts(self, "head_dim", "num_key_value_heads")
        check_divides(self, "num_attention_heads", "num_key_value_heads")
        check_activation(self, "hidden_act")
        check_rates(self, "attention_dropout")
        check_epsilon(self, "rms_norm_eps")
        rotary_part(self, self.head_dim)


def compose(config: LlamaConfig) -> Decoder:
    """The composition that the config describes."""
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    rotary, layer_norm = rotary_part(config, head_dim), RMSNorm(config.rms_norm_eps)
    block = Block(
        attention_norm=layer_norm,
        attention=Attention(
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads or config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            rotary=rotary,
            dropout=config.attention_dropout or 0.0,
        ),
        mlp_norm=layer_norm,
        mlp=GatedMLP(config.intermediate_size, config.hidden_act, config.mlp_bias),
    )
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        blocks=(block,) * config.num_hidden_layers,
        norm=layer_norm,
        head=LanguageHead(tied=config.tie_word_embeddings),
        max_positions=reach(rotary),
    )


def names(config: LlamaConfig) -> NameTable:
    """What checkpoints call the tensors."""
    return NameTable(tuple(_pieces(compose(config))), dropped=(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\..*",))


def _pieces(decoder: Decoder) -> Iterator[Piece]:
    yield Piece("embed_tokens.weight", "tokens.weight")
    for layer, block in enumerate(decoder.blocks):
        assert isinstance(block.mlp, GatedMLP)
        theirs, ours = f"layers.{layer}", f"blocks.{layer}"
        yield from norm(f"{theirs}.input_layernorm", f"{ours}.attention_norm", block.attention_norm)
        yield from llama_attention(f"{theirs}.self_attn", ours, block.attention)
        yield from norm(f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norm", block.mlp_norm)
        yield from llama_mlp(f"{theirs}.mlp", ours, block.mlp)
    yield from norm("norm", "norm", decoder.norm)
    yield Piece("lm_head.weight", "head.weight")


FAMILY = Family("llama", LlamaConfig, compose, names, prefix="model")
