"""Tiny models of every family with random weights in all tensors, and the same models in transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

import loquent.torch.classes as classes
from loquent.families import family
from loquent.hub.matching import match_tensors
from loquent.torch.causal import CausalLM

with warnings.catch_warnings():
    # It calls torch.jit.script when imported, which torch warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    import transformers.models.gpt_bigcode.modeling_gpt_bigcode

VOCABULARY = 71

_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}

FIELDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaConfig", "LlamaForCausalLM", _LLAMA),
    "gpt2": ("gpt2", "GPT2Config", "GPT2LMHeadModel", _GPT2 | _DROPOUT),
    "gpt_neo": (
        "gpt_neo",
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 128,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 5,
        },
    ),
    "gpt_bigcode": (
        "gpt_bigcode",
        "GPTBigCodeConfig",
        "GPTBigCodeForCausalLM",
        _GPT2 | _DROPOUT | {"multi_query": True, "activation_function": "gelu_pytorch_tanh"},
    ),
    "gpt_neox": (
        "gpt_neox",
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "rotary_pct": 0.5,
        },
    ),
    "doge": ("doge", "DogeConfig", "DogeForCausalLM", _LLAMA | {"keep_window_size": 2048}),
    "doge-keep": ("doge", "DogeConfig", "DogeForCausalLM", _LLAMA | {"keep_window_size": 6, "sliding_window": 9}),
}
ALL = sorted(FIELDS)


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter random values: fresh norms, biases and Doge's decay are constants, which hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(values * 0.15 if parameter.dim() > 1 else 1 + values * 0.3)


def tiny(name: str, seed: int = 0, **fields: Any) -> CausalLM:
    """A model of ours."""
    model_type, _, model_name, base = FIELDS[name]
    model = getattr(classes, model_name)(family(model_type).config(**(base | fields))).eval()
    randomize(model, seed)
    return model


def oracle(name: str, seed: int = 0, **fields: Any) -> Any:
    """A model of transformers."""
    _, config_name, model_name, base = FIELDS[name]
    config = getattr(transformers, config_name)(**(base | fields), attn_implementation="eager")
    model = getattr(transformers, model_name)(config).eval()
    randomize(model, seed)
    return model


def copy_weights(theirs: dict[str, torch.Tensor], ours: CausalLM) -> None:
    """Fill our parameters from tensors under a checkpoint's names."""
    prefix = f"{ours.base_model_prefix}."
    parameters = {name.removeprefix(prefix): parameter for name, parameter in ours.named_parameters()}
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    present = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    matches, report = match_tensors(ours.family.names(ours.config), ours.base_model_prefix, shapes, present)
    report.raise_if_any(Path("transformers"))
    with torch.no_grad():
        for match in matches:
            target = parameters[match.piece.ours]
            rows = match.piece.rows
            place = target if rows is None else target[rows[0] : rows[1]]
            place.copy_(match.piece.layout.to_ours(theirs[match.theirs]))


def pair(name: str, **fields: Any) -> tuple[CausalLM, Any]:
    """The same model twice: ours and that of transformers."""
    theirs, ours = oracle(name, **fields), tiny(name, **fields)
    copy_weights(dict(theirs.state_dict()), ours)
    return ours, theirs


def distinct_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Ids (rows, length) that do not repeat in a row: transformers breaks ties of equal tokens in Doge at random."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(VOCABULARY, generator=generator)[:length] for _ in range(rows)])
