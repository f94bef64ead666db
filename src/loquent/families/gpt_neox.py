"""GPT-NeoX (arXiv:2204.06745), which Pythia is too: partial rotary positions, and attention beside the MLP.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/gpt_neox.
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
from loquent.families.layouts import activation, norm
from loquent.names import NameTable, PerHead, Piece, linear
from loquent.parts import (
    MLP,
    Attention,
    Block,
    Decoder,
    LanguageHead,
    LayerNorm,
    ParallelResidual,
    SerialResidual,
)
from loquent.rotary import reach


class GPTNeoXConfig(RotaryConfig):
    """What a GPT-NeoX is: `rotary_pct` of each head's dimensions turn, and `attention_bias` is for all projections of
    the attention, the output's too."""

    model_type = "gpt_neox"
    attribute_map = {  # noqa: RUF012 - declared ClassVar in the base
        "rope_theta": "rotary_emb_base",
        "partial_rotary_factor": "rotary_pct",
    }

    vocab_size: int = 50432
    hidden_size: int = 6144
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    intermediate_size: int = 24576
    hidden_act: str = "gelu"
    rotary_pct: float = 0.25
    rotary_emb_base: float = 10000
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    classifier_dropout: float = 0.1
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False
    use_parallel_residual: bool = True
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool = True

    def validate(self) -> None:
        check_counts(self, "intermediate_size")
        check_divides(self, "hidden_size", "num_attention_heads")
        check_activation(self, "hidden_act")
        check_rates(self, "attention_dropout", "hidden_dropout", "classifier_dropout")
        check_epsilon(self, "layer_norm_eps")
        rotary_part(self, self.hidden_size // self.num_attention_heads)


def compose(config: GPTNeoXConfig) -> Decoder:
    """The composition that the config describes."""
    head_dim, layer_norm = config.hidden_size // config.num_attention_heads, LayerNorm(config.layer_norm_eps)
    rotary = rotary_part(config, head_dim)
    block = Block(
        attention_norm=layer_norm,
        attention=Attention(
            heads=config.num_attention_heads,
            kv_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            rotary=rotary,
            dropout=config.attention_dropout,
        ),
        mlp_norm=layer_norm,
        mlp=MLP(config.intermediate_size, config.hidden_act, bias=True),
        residual=ParallelResidual() if config.use_parallel_residual else SerialResidual(),
        dropout=config.hidden_dropout,
    )
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        blocks=(block,) * config.num_hidden_layers,
        norm=layer_norm,
        head=LanguageHead(tied=config.tie_word_embeddings),
        max_positions=reach(rotary),
        embedding_dropout=config.hidden_dropout,
    )


def names(config: GPTNeoXConfig) -> NameTable:
    """What checkpoints call the tensors; queries, keys and values are fused head by head."""
    layer = r"(gpt_neox\.)?layers\.\d+\.attention\."
    dropped = (rf"{layer}(masked_)?bias", rf"{layer}rotary_emb\..*", r"(gpt_neox\.)?rotary_emb\..*")
    return NameTable(tuple(_pieces(compose(config))), dropped)


def _pieces(decoder: Decoder) -> Iterator[Piece]:
    yield Piece("embed_in.weight", "tokens.weight")
    for layer, block in enumerate(decoder.blocks):
        theirs, ours, attention = f"layers.{layer}", f"blocks.{layer}", block.attention
        yield from norm(f"{theirs}.input_layernorm", f"{ours}.attention_norm", block.attention_norm)
        yield from linear(
            f"{theirs}.attention.query_key_value",
            f"{ours}.attention.qkv",
            bias=attention.qkv_bias,
            layout=PerHead(attention.heads),
        )
        yield from linear(f"{theirs}.attention.dense", f"{ours}.attention.output", bias=attention.output_bias)
        yield from norm(f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norm", block.mlp_norm)
        yield from linear(f"{theirs}.mlp.dense_h_to_4h", f"{ours}.mlp.up", bias=True)
        yield from activation(f"{theirs}.mlp.act", f"{ours}.mlp", block.mlp)
        yield from linear(f"{theirs}.mlp.dense_4h_to_h", f"{ours}.mlp.down", bias=True)
    yield from norm("final_layer_norm", "norm", decoder.norm)
    yield Piece("embed_out.weight", "head.weight")


FAMILY = Family("gpt_neox", GPTNeoXConfig, compose, names, prefix="gpt_neox")
