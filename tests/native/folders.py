"""Checkpoint folders of tiny models of every family, and what their weights are by canonical name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loquent import AutoConfig, AutoModelForCausalLM

VOCABULARY = 71
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 36,
    "intermediate_size": 41,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 64}

FIELDS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2 | {"multi_query": True},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 5,
    },
    "gpt_neox": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "rotary_pct": 0.5,
    },
    "doge": _LLAMA | {"keep_window_size": 6, "attention_bias": True},
    "doge-experts": _LLAMA | {"is_moe": True, "num_experts": 36, "num_experts_per_tok": 4},
}
FAMILIES = sorted(FIELDS)


def make(name: str, seed: int = 0) -> Any:
    """A torch model with random numbers in all weights."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name.partition("-")[0], **FIELDS[name]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * 0.15 if parameter.dim() > 1 else 1 + values * 0.3)
    return model.eval()


def weights_of(model: Any) -> dict[str, np.ndarray]:
    """The float32 weights by canonical name."""
    prefix = f"{model.base_model_prefix}."
    found = {name.removeprefix(prefix): value for name, value in model.named_parameters()}
    return {name: value.detach().float().numpy() for name, value in found.items()}


def rows_of(matrix: Any) -> np.ndarray:
    """What a matrix holds, dequantized."""
    return np.stack([matrix.row(row) for row in range(matrix.rows)])


def edit_config(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's config.json; None takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
