"""GPTBigCode (SantaCoder, StarCoder; arXiv:2301.03988): GPT-2 whose query heads may share one key and value head.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/gpt_bigcode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from loquent.names import NameTable, PerHead, Piece, Same, linear
from loquent.parts import MLP, Attention, Block, Decoder, LanguageHead, LayerNorm, LearnedPositions


class GPTBigCodeConfig(PretrainedConfig):
    """What a GPTBigCode is; an `n_inner` of None means four times `n_embd`.

    `attention_softmax_in_fp32` and `scale_attention_softmax_in_fp32` are kept and have no effect: the softmax is in
    float32 always.
    """

    model_type = "gpt_bigcode"
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
    activation_function: str = "gelu_pytorch_tanh"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    attention_softmax_in_fp32: bool = True
    scale_attention_softmax_in_fp32: bool = True
    multi_query: bool = True

    @classmethod
    def canonical(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        # Files state it, but `multi_query` decides.
        return {name: value for name, value in super().canonical(given).items() if name != "num_key_value_heads"}

    @property
    def num_key_value_heads(self) -> int:
        """How many key and value heads there are: one, or as many as query heads."""
        return 1 if self.multi_query else self.n_head

    def validate(self) -> None:
        check_counts(self, "n_inner")
        check_divides(self, "n_embd", "n_head")
        check_activation(self, "activation_function")
        check_rates(self, "resid_pdrop", "embd_pdrop", "attn_pdrop")
        check_epsilon(self, "layer_norm_epsilon")
        check_no_cross_attention(self)


def compose(config: GPTBigCodeConfig) -> Decoder:
    """The composition that the config describes."""
    layer_norm, head_dim = LayerNorm(config.layer_norm_epsilon), config.n_embd // config.n_head
    block = Block(
        attention_norm=layer_norm,
        attention=Attention(
            heads=config.n_head,
            kv_heads=config.num_key_value_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5 if config.scale_attn_weights else 1.0,
            qkv_bias=True,
            output_bias=True,
            dropout=config.attn_pdrop,
        ),
        mlp_norm=layer_norm,
        mlp=MLP(config.n_inner or 4 * config.n_embd, config.activation_function, bias=True),
        dropout=config.resid_pdrop,
    )
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.n_embd,
        blocks=(block,) * config.n_layer,
        norm=layer_norm,
        head=LanguageHead(tied=config.tie_word_embeddings),
        learned_positions=LearnedPositions(config.n_positions),
        max_positions=config.n_positions,
        embedding_dropout=config.embd_pdrop,
    )


def names(config: GPTBigCodeConfig) -> NameTable:
    """What checkpoints call the tensors."""
    pieces = tuple(gpt_pieces(compose(config), _multi_query if config.multi_query else _multi_head))
    return NameTable(pieces, dropped=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",))


def _multi_query(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    yield from linear(f"{theirs}.attn.c_attn", f"{ours}.attention.qkv", bias=True, layout=Same())
    yield from linear(f"{theirs}.attn.c_proj", f"{ours}.attention.output", bias=True)


def _multi_head(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    yield from linear(f"{theirs}.attn.c_attn", f"{ours}.attention.qkv", bias=True, layout=PerHead(part.heads))
    yield from linear(f"{theirs}.attn.c_proj", f"{ours}.attention.output", bias=True)


FAMILY = Family("gpt_bigcode", GPTBigCodeConfig, compose, names, prefix="transformer")
