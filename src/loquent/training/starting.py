"""The model that a run begins with: of a checkpoint, or of a config with random weights; with an adapter if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loquent.config import PretrainedConfig
from loquent.config.reading import read_config_dict
from loquent.errors import ArgumentError
from loquent.families.auto import AutoConfig
from loquent.torch.adapters import add_lora
from loquent.torch.classes import AutoModelForCausalLM

if TYPE_CHECKING:
    from loquent.config.lora import LoraConfig
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.torch.causal import CausalLM

_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


def config_for(path: Path, tokenizer: PreTrainedTokenizer) -> PretrainedConfig:
    """The config in a file, for a model that is trained from scratch on what a tokenizer makes.

    The ids of special tokens that the file does not name are the tokenizer's.

    Raises:
        ArgumentError: the tokenizer has ids that the config's vocabulary does not reach, or other special ones.
        ConfigError, CheckpointError: the file is no config.
    """
    named = read_config_dict(path)
    given = {role: getattr(tokenizer, role) for role in _ROLES}
    config: PretrainedConfig = AutoConfig.from_pretrained(
        path, **{role: id for role, id in given.items() if named.get(role) is None and id is not None}
    )
    if config.vocab_size < len(tokenizer):
        raise ArgumentError(
            f"{path} has vocab_size={config.vocab_size}, and the tokenizer has {len(tokenizer)} tokens. Set vocab_size "
            f"to {len(tokenizer)}, or to the next multiple of 64 above it."
        )
    ends, own = named.get("eos_token_id"), given["eos_token_id"]
    if ends is not None and own is not None and own not in (ends if isinstance(ends, list) else [ends]):
        raise ArgumentError(
            f"{path} has eos_token_id={ends}, and the tokenizer's EOS {tokenizer.eos_token!r} is {own}: the model "
            "would not know where a text ends. Leave the field out of the file, and it is the tokenizer's."
        )
    return config


def from_scratch(config: PretrainedConfig, *, seed: int, dtype: str, device: str) -> CausalLM:
    """A model with random weights, which follow from the seed."""
    torch.manual_seed(seed)
    model: CausalLM = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(device)


def from_checkpoint(name: str, *, dtype: str, device: str, hub: Mapping[str, Any]) -> CausalLM:
    """A trained model of a folder or the hub.

    Raises:
        ArgumentError: it holds an adapter, or is packed in few bits.
        HubError, CheckpointError, ConfigError: as `from_pretrained`.
    """
    model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, device_map=device, **hub)
    if getattr(model, "peft_config", None):
        raise ArgumentError(
            f"{name!r} holds an adapter alone. Merge it (loquent adapter merge), and train what comes of it."
        )
    trainable: CausalLM = model
    return trainable


def adapt(model: CausalLM, config: LoraConfig, seed: int) -> None:
    """Add a LoRA adapter to train; its random half follows from the seed.

    Raises:
        ArgumentError: the config names layers that the model lacks.
    """
    torch.manual_seed(seed)
    add_lora(model, config)
