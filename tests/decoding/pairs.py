"""Tiny random models of transformers, and the same ones loaded by us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import loquent

VOCABULARY = 37

MakePair = Callable[[int], tuple[Any, Any]]
"""For a seed: a model of ours and the same one of transformers."""


def random_llama(folder: Path, seed: int, vocabulary: int = VOCABULARY) -> tuple[Any, Any]:
    """A random Llama, ours and transformers'; those of odd seeds are less certain of their next token."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.45 if parameter.dim() > 1 else 1.0))
        theirs.lm_head.weight.mul_(0.4 if seed % 2 else 1.0)
    theirs.save_pretrained(folder)
    return loquent.AutoModelForCausalLM.from_pretrained(folder), theirs
