"""Tiny random checkpoints made by transformers itself, some switches each, and both libraries' models of them.

Every tensor is randomized before saving, so that no bias, norm or residual scale hides behind zeros and ones, and the
last norm is scaled so that logits are of unit scale.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from random_weights import VOCABULARY, ids, randomize
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import loquent
from loquent.parts import ACTIVATIONS

with warnings.catch_warnings():
    # It calls torch.jit.script when imported, which torch warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    import transformers.models.gpt_bigcode.modeling_gpt_bigcode

LENGTH = 24  # past every window below

_IDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "intermediate_size": 40,
}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
_NEO = {
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "max_position_embeddings": 64,
    "window_size": 5,
    "attention_types": [[["global", "local"], 1], [["local"], 1]],
}
_SHORT = {"max_position_embeddings": 16}
_LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}
_DYNAMIC = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, **_SHORT}
_YARN = {
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 4.0,
        "beta_slow": 0.25,
    }
}
_LLAMA3 = {
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
}


def _longrope(pairs: int) -> dict[str, Any]:
    short, long = [1.0 + 0.1 * i for i in range(pairs)], [1.2 + 0.8 * i for i in range(pairs)]
    return {
        "rope_scaling": {"rope_type": "longrope", "short_factor": short, "long_factor": long},
        "original_max_position_embeddings": 16,
    }


_BIASES = {"attention_bias": True, "mlp_bias": True}

SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "plain": {},
        "grouped, tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
        "one key head, biases": {"num_key_value_heads": 1, **_BIASES},
        "wide heads": {"head_dim": 16, "num_attention_heads": 3, "hidden_act": "gelu_pytorch_tanh"},
        "linear": _LINEAR,
        "dynamic": _DYNAMIC,
        "yarn": _YARN,
        "yarn, tempered": {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 2.0,
                "attention_factor": 1.3,
                "truncate": False,
                "mscale": 0.7,
                "mscale_all_dim": 1.1,
            }
        },
        "longrope": _longrope(4),
        "longrope, older spelling": {
            **_longrope(4),
            "rope_scaling": {**_longrope(4)["rope_scaling"], "type": "longrope"},
            "num_key_value_heads": 2,
        },
        "llama3": {**_LLAMA3, "rope_theta": 500.0},
        "prelu, tensor parallel": {"hidden_act": "prelu", "pretraining_tp": 2, "rms_norm_eps": 0.01},
    },
    "gpt2": {
        "plain": {},
        "unscaled": {"scale_attn_weights": False},
        "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
        "unscaled but by layer": {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        "reordered": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        "inner width": {"n_inner": 20, "activation_function": "relu"},
        "untied": {"tie_word_embeddings": False, "layer_norm_epsilon": 0.1},
        "one head, one layer": {"n_head": 1, "n_layer": 1, "resid_pdrop": 0.0},
        "prelu": {"activation_function": "prelu"},
    },
    "gpt_neo": {
        "alternating": {},
        "global": {"attention_types": [[["global"], 3]]},
        "local": {"attention_types": [[["local"], 3]], "window_size": 2},
        "starting locally": {"attention_types": [[["local", "global", "local"], 1]], "window_size": 7},
        "inner width": {"intermediate_size": 20},
        "window past the end": {"window_size": 64, "layer_norm_epsilon": 0.1},
        "untied": {"tie_word_embeddings": False},
        "relu": {"activation_function": "relu", "num_heads": 2},
        "prelu": {"activation_function": "prelu"},
    },
    "gpt_bigcode": {
        "one key head": {},
        "key heads": {"multi_query": False},
        "one key head, unscaled": {"scale_attn_weights": False},
        "key heads, unscaled": {"multi_query": False, "scale_attn_weights": False},
        "narrow softmax": {"attention_softmax_in_fp32": False, "scale_attention_softmax_in_fp32": False},
        "inner width": {"n_inner": 20, "activation_function": "gelu"},
        "key heads, untied": {"multi_query": False, "tie_word_embeddings": False},
        "one head": {"n_head": 1, "layer_norm_epsilon": 0.1},
        "prelu": {"activation_function": "prelu"},
    },
    "gpt_neox": {
        "plain": {},
        "all dimensions": {"rotary_pct": 1.0, "rotary_emb_base": 500},
        "one after another": {"use_parallel_residual": False, "rotary_pct": 0.5},
        "no attention biases": {"attention_bias": False},
        "tied": {"tie_word_embeddings": True, "layer_norm_eps": 0.1},
        "an odd number of dimensions": {"hidden_size": 48, "rotary_pct": 0.25},
        "linear": {**_LINEAR, "rotary_pct": 0.5},
        "dynamic": {**_DYNAMIC, "rotary_pct": 1.0},
        "yarn": {**_YARN, "rotary_pct": 1.0},
        "longrope": {**_longrope(2), "rotary_pct": 0.5},
        "llama3": {**_LLAMA3, "rotary_pct": 1.0, "use_parallel_residual": False},
        "relu": {"hidden_act": "relu"},
    },
    "doge": {
        "plain": {},
        "kept": {"keep_window_size": 5},
        "two kept, grouped": {"keep_window_size": 2, "num_key_value_heads": 2},
        "window": {"sliding_window": 6},
        "window and kept": {"sliding_window": 9, "keep_window_size": 4, "num_key_value_heads": 1},
        "biases": {**_BIASES, "keep_window_size": 7},
        "tied": {"tie_word_embeddings": True, "hidden_act": "gelu", "rms_norm_eps": 0.01},
        "head width": {"head_dim": 16, "keep_window_size": 8},
        "dynamic": {**_DYNAMIC, "keep_window_size": 10},
        "yarn": {**_YARN, "keep_window_size": 10},
        "longrope": {**_longrope(4), "num_key_value_heads": 2},
        "prelu": {"hidden_act": "prelu"},
    },
}

CASES = [(family, switches) for family, several in SWITCHES.items() for switches in several]

BASES: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "gpt2": _GPT,
    "gpt_neo": _NEO,
    "gpt_bigcode": _GPT,
    "gpt_neox": _SHAPE,
    "doge": _SHAPE,
}

ACTIVATION_FIELD = {
    "llama": "hidden_act",
    "gpt2": "activation_function",
    "gpt_neo": "activation_function",
    "gpt_bigcode": "activation_function",
    "gpt_neox": "hidden_act",
    "doge": "hidden_act",
}

ALL_ACTIVATIONS = sorted(ACTIVATIONS)


def config_of(family: str, **switches: Any) -> Any:
    """The config of transformers of a tiny model."""
    return transformers.AutoConfig.for_model(family, **{**_IDS, **BASES[family], **switches})


def make(folder: Path, config: Any, seed: int = 0) -> None:
    """Write a checkpoint with transformers."""
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    randomize(model, seed)
    model.save_pretrained(folder)


@dataclass
class Pair:
    """A checkpoint, and the model that each library makes of it."""

    folder: Path
    family: str
    switches: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def theirs(self) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(self.folder, attn_implementation="eager").eval()

    @cached_property
    def ours(self) -> Any:
        return loquent.AutoModelForCausalLM.from_pretrained(self.folder)

    @cached_property
    def reference(self) -> Any:
        """All that transformers says of `ids(1, LENGTH)` in one full forward pass."""
        return self.theirs_alone(ids(1, LENGTH), output_hidden_states=True, output_attentions=True)

    @property
    def depends_on_length(self) -> bool:
        """Whether the rotary frequencies depend on how long the text is."""
        return (self.switches.get("rope_scaling") or {}).get("rope_type") in {"dynamic", "longrope"}

    @torch.no_grad()
    def theirs_alone(self, tokens: Tensor, **kwargs: Any) -> Any:
        # A single token first: what dynamic rotary scaling remembers of longer inputs goes.
        self.theirs(tokens[:, :1])
        return self.theirs(tokens, **kwargs)


MakePair = Callable[[str, str], Pair]
"""From a family and the name of its switches."""


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by its own names."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def config_fields(folder: Path) -> dict[str, Any]:
    """The fields of a checkpoint's config."""
    fields: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return fields


def rewrite(source: Path, target: Path, tensors: dict[str, Tensor]) -> None:
    """A checkpoint like `source` with other tensors."""
    target.mkdir()
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    with safe_open(source / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file(tensors, target / "model.safetensors", metadata)


def assert_close(found: Tensor, expected: Tensor, at_most: float = 1e-4) -> None:
    """Equal shapes, and no difference over `at_most`; says where the worst one is."""
    assert found.shape == expected.shape
    difference = (found.detach() - expected.detach()).abs()
    assert bool(torch.isfinite(found).all())
    worst = float(difference.max())
    assert worst < at_most, f"differs by {worst:.2e} at flat index {int(difference.argmax())} of {tuple(found.shape)}"
