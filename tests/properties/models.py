"""Tiny random models of every family, with windows and kept keys that short texts exceed."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from loquent.families import family
from loquent.torch import classes
from loquent.torch.causal import CausalLM

VOCABULARY = 31
POSITIONS = 96

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_GROUPED = _SHAPE | {"num_key_value_heads": 2}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_WINDOWS = {"keep_window_size": 6, "sliding_window": 11}

FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaForCausalLM", _GROUPED),
    "llama-dynamic": (
        "llama",
        "LlamaForCausalLM",
        _GROUPED | {"rope_scaling": {"rope_type": "dynamic", "factor": 6.0}, "max_position_embeddings": 16},
    ),
    "gpt2": ("gpt2", "GPT2LMHeadModel", _GPT2 | _NO_DROPOUT),
    "gpt_neo": (
        "gpt_neo",
        "GPTNeoForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": POSITIONS,
            "attention_types": [[["local", "global"], 1]],
            "window_size": 5,
        },
    ),
    "gpt_bigcode": ("gpt_bigcode", "GPTBigCodeForCausalLM", _GPT2 | _NO_DROPOUT | {"multi_query": True}),
    "gpt_neox": ("gpt_neox", "GPTNeoXForCausalLM", _SHAPE | {"rotary_pct": 0.5}),
    "doge": ("doge", "DogeForCausalLM", _GROUPED | _WINDOWS),
    "doge-experts": (
        "doge",
        "DogeForCausalLM",
        _GROUPED | _WINDOWS | {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 3},
    ),
}
EVERY = sorted(FAMILIES)


@cache
def tiny(name: str) -> CausalLM:
    """The model of that name: every tensor random, logits of unit scale, no special tokens."""
    model_type, model_class, fields = FAMILIES[name]
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    model: CausalLM = getattr(classes, model_class)(family(model_type).config(**fields, **ids)).eval()
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.3 if parameter.dim() > 1 else 1 + 0.3 * noise)
        model.get_input_embeddings().weight.mul_(3)
        scale = model(torch.arange(20)[None]).logits.std() / 2
        for parameter in model.base_model.norm.parameters():
            parameter.div_(scale)
    return model
