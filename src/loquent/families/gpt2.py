"""GPT-2 (Radford et al., 2019), which DialoGPT is too: learned positions, LayerNorm first, one fused projection.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/gpt2.
"""

from __future__ import annotations

from collections.abc import Iterator

from loquent.config.base import PretrainedConfig
from loquent.families import Family
from loquent.families.checks import (
    check_activation,
    check_counts,
    check_divides,
    check_epsilon,
    check_no_cross_attention,
    check_rates,
)
from loquent.families.layouts import gpt_pieces
from loquent.names import NameTable, Piece, Transposed, linear
from loquent.parts import MLP, Attention, Block, Decoder, LanguageHead, LayerNorm, LearnedPositions


class GPT2Config(PretrainedConfig):
    """What a GPT-2 is; an `n_inner` of None means four times `n_embd`.

    `reorder_and_upcast_attn` is kept and has no effect: it moves where numbers are rounded, and the softmax is in
    float32 anyway. The `summary_*` fields are for heads that choose between texts.
    """

    model_type = "gpt2"
    attribute_map = {  # noqa: RUF012 - declared ClassVar in the base
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    summary_type: str = "cls_index"
    summary_use_proj: bool = True
    summary_activation: str | None = None
    summary_proj_to_labels: bool = True
    summary_first_dropout: float = 0.1
    scale_attn_weights: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False

    def validate(self) -> None:
        check_counts(self, "n_inner")
        check_divides(self, "n_embd", "n_head")
        check_activation(self, "activation_function")
        check_rates(self, "resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout")
        check_epsilon(self, "layer_norm_epsilon")
        check_no_cross_attention(self)


def compose(config: GPT2Config) -> Decoder:
    """The composition that the config describes."""
    layer_norm = LayerNorm(config.layer_norm_epsilon)
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.n_embd,
        blocks=tuple(_block(config, layer) for layer in range(config.n_layer)),
        norm=layer_norm,
        head=LanguageHead(tied=config.tie_word_embeddings),
        learned_positions=LearnedPositions(config.n_positions),
        max_positions=config.n_positions,
        embedding_dropout=config.embd_pdrop,
    )


def _block(config: GPT2Config, layer: int) -> Block:
    layer_norm, head_dim = LayerNorm(config.layer_norm_epsilon), config.n_embd // config.n_head
    scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= layer + 1
    return Block(
        attention_norm=layer_norm,
        attention=Attention(
            heads=config.n_head,
            kv_heads=config.n_head,
            head_dim=head_dim,
            scale=scale,
            qkv_bias=True,
            output_bias=True,
            dropout=config.attn_pdrop,
        ),
        mlp_norm=layer_norm,
        mlp=MLP(config.n_inner or 4 * config.n_embd, config.activation_function, bias=True),
        dropout=config.resid_pdrop,
    )


def names(config: GPT2Config) -> NameTable:
    """What checkpoints call the tensors; their matrices are (inputs, outputs)."""
    pieces = gpt_pieces(compose(config), _attention, mlp=Transposed())
    return NameTable(tuple(pieces), dropped=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",))


def _attention(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    yield from linear(f"{theirs}.attn.c_attn", f"{ours}.attention.qkv", bias=True, layout=Transposed())
    yield from linear(f"{theirs}.attn.c_proj", f"{ours}.attention.output", bias=True, layout=Transposed())


FAMILY = Family("gpt2", GPT2Config, compose, names, prefix="transformer")
