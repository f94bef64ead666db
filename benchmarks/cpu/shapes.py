"""The models that are measured: their configs, what a token reads of them and costs; no weights, no library.

Configs have transformers' field names. None has an end token, so that every engine writes exactly what it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("float32", "bfloat16", "int8", "int4")

BYTES_PER_WEIGHT: Mapping[str, float] = {"float32": 4, "bfloat16": 2, "int8": 1, "int4": 0.5 + 4 / 32}
"""What a weight of a matrix takes at least; int4 has a scale and an offset of two bytes each for 32 weights."""

NO_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@dataclass(frozen=True)
class Shape:
    """A model with random weights."""

    name: str  # on the command line, and of its files
    title: str
    family: str  # the stem of its classes
    model: str  # the class with the head
    config: Mapping[str, Any]
    vocabulary: int
    width: int
    layers: int
    layer_weights: int  # in the matrices of one layer
    precisions: tuple[str, ...] = PRECISIONS  # what is measured where nothing else is asked for
    new: int = 64  # tokens of one measurement of decoding
    beams: bool = False  # whether beam search is measured
    starts: bool = False  # whether cold processes are measured
    share: float = 0.8  # of the streaming limit that is the target
    large: bool = False  # over 160M

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All weights that every token reads: the matrices and the head, without looked-up embeddings."""
        return self.layers * self.layer_weights + self.head_weights

    def bytes(self, precision: str) -> int:
        """What one pass over the weights reads."""
        return int(self.weights * BYTES_PER_WEIGHT[precision])


SHAPES = (
    Shape(
        name="gpt2",
        title="GPT-2 124M",
        family="GPT2",
        model="GPT2LMHeadModel",
        config={**NO_ENDS, "vocab_size": 50257},
        vocabulary=50257,
        width=768,
        layers=12,
        layer_weights=12 * 768**2,
        beams=True,
        starts=True,
    ),
    Shape(
        name="doge-20m",
        title="Doge-20M",
        family="Doge",
        model="DogeForCausalLM",
        config={
            **NO_ENDS,
            "vocab_size": 32768,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "max_position_embeddings": 2048,
        },
        vocabulary=32768,
        width=256,
        layers=8,
        layer_weights=2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512,
        share=0.5,
    ),
    Shape(
        name="llama-15m",
        title="Llama 15M",
        family="Llama",
        model="LlamaForCausalLM",
        config={
            **NO_ENDS,
            "vocab_size": 32000,
            "hidden_size": 288,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "tie_word_embeddings": True,
            "max_position_embeddings": 2048,
        },
        vocabulary=32000,
        width=288,
        layers=6,
        layer_weights=4 * 288**2 + 3 * 288 * 768,
        share=0.5,
    ),
    Shape(
        name="pythia-160m",
        title="Pythia-160M",
        family="GPTNeoX",
        model="GPTNeoXForCausalLM",
        config={
            **NO_ENDS,
            "vocab_size": 50304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "rotary_pct": 0.25,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
        },
        vocabulary=50304,
        width=768,
        layers=12,
        layer_weights=12 * 768**2,
    ),
    Shape(
        name="bigcode-1.1b",
        title="GPTBigCode 1.1B",
        family="GPTBigCode",
        model="GPTBigCodeForCausalLM",
        config={
            **NO_ENDS,
            "vocab_size": 49280,
            "n_positions": 2048,
            "n_embd": 2048,
            "n_layer": 24,
            "n_head": 16,
            "n_inner": 8192,
            "multi_query": True,
            "activation_function": "gelu_pytorch_tanh",
        },
        vocabulary=49280,
        width=2048,
        layers=24,
        layer_weights=2 * 2048**2 + 2 * 2048 * 128 + 2 * 2048 * 8192,
        precisions=("bfloat16", "int8", "int4"),
        new=16,
        large=True,
    ),
)


def shape_named(name: str) -> Shape:
    """The shape that the command line names."""
    return {shape.name: shape for shape in SHAPES}[name]
