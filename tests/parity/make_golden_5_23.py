"""Writes `golden/`: tiny checkpoints by transformers 5.23 and what it computes of them, for what 4.55.4 cannot do.

Run it with transformers 5.23 installed (torch 2.13 made the present files):

    python tests/parity/make_golden_5_23.py

Each folder holds a checkpoint as 5.23 saves it (newer config spellings, bfloat16) and `reference.safetensors`: the ids,
the logits of one full forward pass, and those of reading token by token, both in float32 with eager attention.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from random_weights import ids, randomize
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "golden"
VOCABULARY, LENGTH = 32, 16

_IDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "n_inner": 20}
_EXPERTS = {**_SHAPE, "is_moe": True, "num_experts": 16, "num_experts_per_tok": 4}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 500.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10000.0,
}

_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5],
    "long_factor": [1.2, 6.0],
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 8,
}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "doge-experts": ("doge", _EXPERTS),
    "doge-experts-normalized": (
        "doge",
        {**_EXPERTS, "norm_topk_prob": True, "num_key_value_heads": 2, "keep_window_size": 5},
    ),
    "doge-experts-biased": (
        "doge",
        {**_EXPERTS, "num_experts": 11, "num_experts_per_tok": 3, "mlp_bias": True, "attention_bias": True},
    ),
    "doge-experts-tied": (
        "doge",
        {
            **_EXPERTS,
            "num_experts": 4,
            "tie_word_embeddings": True,
            "hidden_act": "gelu",
            "num_key_value_heads": 1,
            "sliding_window": 7,
            "keep_window_size": 4,
        },
    ),
    "doge": ("doge", {**_SHAPE, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0}}),
    "llama": ("llama", {**_SHAPE, "num_key_value_heads": 2, "rope_parameters": _YARN}),
    "llama-llama3": ("llama", {**_SHAPE, "attention_bias": True, "rope_parameters": _LLAMA3}),
    "llama-longrope": ("llama", {**_SHAPE, "num_key_value_heads": 1, "rope_parameters": _LONGROPE}),
    "gpt_neox": (
        "gpt_neox",
        {**_SHAPE, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5}},
    ),
    "gpt2": ("gpt2", {**_GPT, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_bigcode": ("gpt_bigcode", _GPT),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 20,
            "window_size": 5,
            "max_position_embeddings": 24,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
}


@torch.no_grad()
def make(name: str, family: str, switches: dict[str, Any]) -> None:
    """Write one folder."""
    config = transformers.AutoConfig.for_model(family, **{**_IDS, **switches})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    randomize(model, seed=len(name))
    model.bfloat16().save_pretrained(GOLDEN / name)
    # Read again, for the rounded weights, and for rotary frequencies that were never rounded.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        GOLDEN / name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = ids(1, LENGTH, vocabulary=VOCABULARY)
    cache, steps = None, []
    for token in tokens.split(1, dim=1):
        output = model(token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    found = {"ids": tokens, "logits": model(tokens).logits, "step_logits": torch.cat(steps, 1)}
    save_file(found, GOLDEN / name / "reference.safetensors")
    (GOLDEN / name / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    if not transformers.__version__.startswith("5.23."):
        raise SystemExit(f"this needs transformers 5.23, not {transformers.__version__}")
    for case, (model_type, fields) in CASES.items():
        shutil.rmtree(GOLDEN / case, ignore_errors=True)
        make(case, model_type, fields)
