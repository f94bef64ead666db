"""Writes a folder in the Hugging Face format as a GGUF file for llama.cpp, every matrix in the one precision asked for.

Run in llama.cpp's environment: python -m cpu.gguf_files SHAPE FOLDER PRECISION FILE
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from cpu.shapes import Shape, shape_named

Matrix = NDArray[np.float32]
Change = Callable[[Matrix, int], Matrix]  # of a tensor of a model with so many heads

TYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
}
LEARNED_POSITIONS = "position_embd.weight"  # llama.cpp adds them and wants them in float32


def as_is(tensor: Matrix, heads: int) -> Matrix:
    return tensor


def transposed(tensor: Matrix, heads: int) -> Matrix:
    return tensor.T if tensor.ndim == 2 else tensor


def rotary_pairs(tensor: Matrix, heads: int) -> Matrix:
    """Rows of each head reordered so that the two halves that rotate together become neighbours."""
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)


def joined_by_kind(tensor: Matrix, heads: int) -> Matrix:
    """From query, key and value of each head in turn to all queries, all keys, all values."""
    return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)


# Per family: llama.cpp's name of it, and for each name in the checkpoint llama.cpp's name and what to do.
GPT2_NAMES = {
    r"(?:transformer\.)?wte": "token_embd",
    r"(?:transformer\.)?wpe": "position_embd",
    r"(?:transformer\.)?ln_f": "output_norm",
    r"(?:transformer\.)?h\.(\d+)\.ln_1": r"blk.\1.attn_norm",
    r"(?:transformer\.)?h\.(\d+)\.ln_2": r"blk.\1.ffn_norm",
    r"(?:transformer\.)?h\.(\d+)\.attn\.c_attn": r"blk.\1.attn_qkv",
    r"(?:transformer\.)?h\.(\d+)\.attn\.c_proj": r"blk.\1.attn_output",
    r"(?:transformer\.)?h\.(\d+)\.mlp\.c_fc": r"blk.\1.ffn_up",
    r"(?:transformer\.)?h\.(\d+)\.mlp\.c_proj": r"blk.\1.ffn_down",
}
NAMES: dict[str, tuple[str, dict[str, str], dict[str, Change]]] = {
    "GPT2": ("gpt2", GPT2_NAMES, {r"attn_qkv|attn_output|ffn_": transposed}),
    "GPTBigCode": ("starcoder", GPT2_NAMES, {}),
    "GPTNeoX": (
        "gptneox",
        {
            r"gpt_neox\.embed_in": "token_embd",
            r"gpt_neox\.final_layer_norm": "output_norm",
            r"embed_out": "output",
            r"gpt_neox\.layers\.(\d+)\.input_layernorm": r"blk.\1.attn_norm",
            r"gpt_neox\.layers\.(\d+)\.post_attention_layernorm": r"blk.\1.ffn_norm",
            r"gpt_neox\.layers\.(\d+)\.attention\.query_key_value": r"blk.\1.attn_qkv",
            r"gpt_neox\.layers\.(\d+)\.attention\.dense": r"blk.\1.attn_output",
            r"gpt_neox\.layers\.(\d+)\.mlp\.dense_h_to_4h": r"blk.\1.ffn_up",
            r"gpt_neox\.layers\.(\d+)\.mlp\.dense_4h_to_h": r"blk.\1.ffn_down",
        },
        {r"attn_qkv": joined_by_kind},
    ),
    "Llama": (
        "llama",
        {
            r"model\.embed_tokens": "token_embd",
            r"model\.norm": "output_norm",
            r"model\.layers\.(\d+)\.input_layernorm": r"blk.\1.attn_norm",
            r"model\.layers\.(\d+)\.post_attention_layernorm": r"blk.\1.ffn_norm",
            r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj": r"blk.\1.attn_\2",
            r"model\.layers\.(\d+)\.self_attn\.o_proj": r"blk.\1.attn_output",
            r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj": r"blk.\1.ffn_\2",
        },
        {r"attn_[qk]$": rotary_pairs},
    ),
}
"""The families that llama.cpp has, of those that are measured."""


def add_config(writer: Any, shape: Shape, config: dict[str, Any]) -> None:
    """The hyperparameters, under either spelling of the checkpoint's fields."""

    def field(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    heads = field("n_head", "num_attention_heads")
    writer.add_context_length(field("n_positions", "max_position_embeddings"))
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(field("n_inner", "intermediate_size") or 4 * shape.width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1 if config.get("multi_query") else heads)
    writer.add_vocab_size(shape.vocabulary)
    if shape.family == "Llama":
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(shape.width // heads)
    else:
        writer.add_layer_norm_eps(field("layer_norm_epsilon", "layer_norm_eps"))
    if shape.family == "GPTNeoX":
        writer.add_rope_dimension_count(int(config["rotary_pct"] * shape.width) // heads)
        writer.add_parallel_residual(config["use_parallel_residual"])


def add_tokenizer(writer: Any, folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    last = len(vocabulary) - 1
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary))
    writer.add_token_types([gguf.TokenType.NORMAL] * last + [gguf.TokenType.CONTROL])
    writer.add_token_merges(content["model"]["merges"])
    writer.add_bos_token_id(last)
    writer.add_eos_token_id(last)


def write(shape: Shape, folder: Path, precision: str, file: Path) -> None:
    """The whole file."""
    architecture, names, changes = NAMES[shape.family]
    config = json.loads((folder / "config.json").read_text())
    heads = config.get("n_head") or config["num_attention_heads"]
    writer = gguf.GGUFWriter(file, architecture)
    add_config(writer, shape, config)
    add_tokenizer(writer, folder)
    for stored in sorted(folder.glob("*.safetensors")):
        with safe_open(stored, "np") as tensors:
            for key in tensors.keys():  # noqa: SIM118
                stem, kind = key.rsplit(".", 1)
                [name] = [re.sub(pattern, new, stem) for pattern, new in names.items() if re.fullmatch(pattern, stem)]
                change = next((change for pattern, change in changes.items() if re.search(pattern, name)), as_is)
                tensor = np.ascontiguousarray(change(tensors.get_tensor(key), heads))
                matrix = tensor.ndim == 2 and f"{name}.{kind}" != LEARNED_POSITIONS
                type_ = TYPES[precision] if matrix else TYPES["float32"]
                writer.add_tensor(f"{name}.{kind}", gguf.quants.quantize(tensor, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(shape_named(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
