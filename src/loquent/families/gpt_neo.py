"""GPT-Neo (Black et al., 2021): GPT-2 with unscaled scores and layers that see a window of the latest keys only.

The fields of the config are those of https://huggingface.co/docs/transformers/model_doc/gpt_neo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loquent.config.base import PretrainedConfig
from loquent.errors import ConfigError
from loquent.families import Family
from loquent.families.checks import (
    check_activation,
    check_counts,
    check_divides,
    check_epsilon,
    check_rates,
    refuse,
)
from loquent.families.layouts import gpt_pieces
from loquent.names import NameTable, Piece, linear, stacked
from loquent.parts import MLP, Attention, Block, Decoder, LanguageHead, LayerNorm, LearnedPositions

_MOST_LAYERS = 10_000


class GPTNeoConfig(PretrainedConfig):
    """What a GPT-Neo is; an `intermediate_size` of None means four times `hidden_size`.

    `attention_types` is a list of [kinds, times]: [[["global", "local"], 12]] makes 24 layers that alternate between
    seeing all keys and the latest `window_size`. Written out it is `attention_layers`, accepted in its place.
    """

    model_type = "gpt_neo"
    attribute_map = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}  # noqa: RUF012 - ClassVar

    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    hidden_size: int = 2048
    num_layers: int = 24
    attention_types: list[Any] = [[["global", "local"], 12]]  # noqa: RUF012 - copied per config
    num_heads: int = 16
    intermediate_size: int | None = None
    window_size: int = 256
    activation_function: str = "gelu_new"
    resid_dropout: float = 0.0
    embed_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256

    @classmethod
    def canonical(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        fields = super().canonical(given)
        layers = fields.pop("attention_layers", None)
        types = fields.get("attention_types")
        if types is None:
            fields.pop("attention_types", None)
        if layers is None:
            return fields
        if types is None:
            return fields | {"attention_types": [[layers, 1]]}
        repeats = _repeats(cls.__name__, types)
        # Counted first: written out, a hostile config's layers could fill the memory.
        alike = isinstance(layers, list) and _count(repeats) == len(layers) and _written_out(repeats) == layers
        if not alike:
            raise ConfigError(
                f"{cls.__name__}: attention_layers={layers!r} contradicts attention_types={types!r}, which it writes "
                "out layer by layer. Keep one of them."
            )
        return fields

    @property
    def attention_layers(self) -> list[str]:
        """The kind of each layer's attention, "global" or "local"."""
        return _written_out(_repeats(type(self).__name__, self.attention_types))

    def validate(self) -> None:
        layers = _count(_repeats(type(self).__name__, self.attention_types))
        if layers != self.num_layers:
            raise refuse(
                self,
                "attention_types",
                f"describes {layers} layers, but num_layers={self.num_layers}. For {self.num_layers} layers that see "
                f'every key, use [[["global"], {self.num_layers}]].',
            )
        check_counts(self, "intermediate_size", "window_size")
        check_divides(self, "hidden_size", "num_heads")
        check_activation(self, "activation_function")
        check_rates(self, "resid_dropout", "embed_dropout", "attention_dropout", "classifier_dropout")
        check_epsilon(self, "layer_norm_epsilon")


def _repeats(owner: str, types: Any) -> list[tuple[list[str], int]]:
    """`attention_types` after a check of every value in it."""
    repeats = []
    for item in types if isinstance(types, list | tuple) else [types]:
        kinds, times = item if isinstance(item, list | tuple) and len(item) == 2 else (None, None)
        if not isinstance(kinds, list | tuple) or not all(kind in ("global", "local") for kind in kinds):
            raise _malformed(owner, types)
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= _MOST_LAYERS:
            raise _malformed(owner, types)
        repeats.append((list(kinds), times))
    return repeats


def _malformed(owner: str, types: Any) -> ConfigError:
    said = repr(types)
    return ConfigError(
        f"{owner}: attention_types={said if len(said) <= 200 else said[:200] + '...'} must be a list of "
        '[kinds, times], where the kinds are "global" and "local", such as [[["global", "local"], 12]].'
    )


def _count(repeats: list[tuple[list[str], int]]) -> int:
    return sum(len(kinds) * times for kinds, times in repeats)


def _written_out(repeats: list[tuple[list[str], int]]) -> list[str]:
    return [kind for kinds, times in repeats for _ in range(times) for kind in kinds]


def compose(config: GPTNeoConfig) -> Decoder:
    """The composition that the config describes."""
    return Decoder(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        blocks=tuple(_block(config, kind) for kind in config.attention_layers),
        norm=LayerNorm(config.layer_norm_epsilon),
        head=LanguageHead(tied=config.tie_word_embeddings),
        learned_positions=LearnedPositions(config.max_position_embeddings),
        max_positions=config.max_position_embeddings,
        embedding_dropout=config.embed_dropout,
    )


def _block(config: GPTNeoConfig, kind: str) -> Block:
    layer_norm = LayerNorm(config.layer_norm_epsilon)
    return Block(
        attention_norm=layer_norm,
        attention=Attention(
            heads=config.num_heads,
            kv_heads=config.num_heads,
            head_dim=config.hidden_size // config.num_heads,
            scale=1.0,
            qkv_bias=False,
            output_bias=True,
            window=config.window_size if kind == "local" else None,
            dropout=config.attention_dropout,
        ),
        mlp_norm=layer_norm,
        mlp=MLP(config.intermediate_size or 4 * config.hidden_size, config.activation_function, bias=True),
        dropout=config.resid_dropout,
    )


def names(config: GPTNeoConfig) -> NameTable:
    """What checkpoints call the tensors."""
    pieces = tuple(gpt_pieces(compose(config), _attention))
    return NameTable(pieces, dropped=(r"(transformer\.)?h\.\d+\.attn\.attention\.(masked_)?bias",))


def _attention(theirs: str, ours: str, part: Attention) -> Iterator[Piece]:
    rows = ((f"{theirs}.attn.attention.{name}_proj", part.heads * part.head_dim) for name in "qkv")
    yield from stacked(rows, f"{ours}.attention.qkv", bias=False)
    yield from linear(f"{theirs}.attn.attention.out_proj", f"{ours}.attention.output", bias=True)


FAMILY = Family("gpt_neo", GPTNeoConfig, compose, names, prefix="transformer")
