"""Tiny models with the same LoRA adapter, ours and PEFT's around transformers'; whose tests import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from tiny_models import pair

from loquent import LoraConfig
from loquent.torch.adapters.files import part_of
from loquent.torch.causal import CausalLM

FAMILIES = ["doge", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "llama"]
IDS = torch.stack([torch.randperm(71, generator=torch.Generator().manual_seed(seed))[:17] for seed in range(2)])


def randomize_adapters(model: torch.nn.Module, seed: int = 1) -> None:
    """Give all A and B values, so that nothing hides behind zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def theirs_with(model: Any, name: str = "default", **fields: Any) -> Any:
    """PEFT's model around one of transformers, with a random adapter."""
    # Otherwise it warns that GPT-2's layers are transposed.
    fields = {"r": 4, "lora_alpha": 12, "fan_in_fan_out": model.config.model_type == "gpt2"} | fields
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**fields), adapter_name=name)
    randomize_adapters(wrapped)
    return wrapped


def adapted_pair(name: str, folder: Path, **fields: Any) -> tuple[CausalLM, Any]:
    """The same model twice, with PEFT's adapter: ours loads it from the folder that PEFT saves."""
    ours, theirs = pair(name)
    wrapped = theirs_with(theirs, **fields)
    wrapped.save_pretrained(folder)
    ours.load_adapter(folder, is_trainable=True)
    return ours, wrapped.eval()


def ours_with(model: CausalLM, name: str = "default", seed: int = 1, **fields: Any) -> CausalLM:
    """Our model with a random adapter."""
    model.add_adapter(LoraConfig(**({"r": 4, "lora_alpha": 12, "target_modules": "all-linear"} | fields)), name)
    generator = torch.Generator().manual_seed(seed)
    assert model._adapters
    with torch.no_grad():
        for target in model._adapters.targets[name]:
            part = part_of(model, target, name)
            for parameter in (part.lora_A, part.lora_B):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def gradients(model: CausalLM, name: str = "default") -> dict[str, torch.Tensor]:
    """The gradients of our A and B by PEFT's names, laid out as there."""
    assert model._adapters
    found = {}
    for target in model._adapters.targets[name]:
        part = part_of(model, target, name)
        assert part.lora_A.grad is not None
        assert part.lora_B.grad is not None
        found[f"base_model.model.{target.name}.lora_A.{name}.weight"] = part.lora_A.grad
        found[f"base_model.model.{target.name}.lora_B.{name}.weight"] = target.to_theirs(part.lora_B.grad)
    return found
