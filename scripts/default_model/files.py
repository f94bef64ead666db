"""The files that ship: weights in bfloat16, to be computed in float32, and how texts are sampled."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from loquent import AutoModelForCausalLM, AutoTokenizer, DogeConfig, GenerationConfig


def ship(run: Path, folder: Path) -> None:
    """Write the model of a finished run as the package has it: model, tokenizer, settings and the loss curve."""
    model = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(run)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")],
        pad_token_id=tokenizer.pad_token_id,
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
    tokenizer.save_pretrained(folder)
    if (run / "loss.png").is_file():
        shutil.copyfile(run / "loss.png", folder / "loss.png")
