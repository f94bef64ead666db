"""The files of the trained model: weights in bfloat16, to be computed in float32, and how stories are sampled."""

from __future__ import annotations

from pathlib import Path

import torch

from loquent import DogeConfig, DogeForCausalLM, GenerationConfig


def save_model(model: DogeForCausalLM, folder: Path) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors`; leaves the model in bfloat16."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=True,
        temperature=0.8,
        top_k=40,
        top_p=0.95,
        max_new_tokens=256,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    # Stored in half the size, computed in float32, which every processor does well.
    config = DogeConfig.from_pretrained(folder)
    config.dtype = "float32"
    config.save_pretrained(folder)
