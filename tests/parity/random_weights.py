"""Random ids and weights that hide no bug; needs torch alone, so that every version of transformers can use it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VOCABULARY = 61


def ids(rows: int, length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> Tensor:
    """Random token ids, none of them twice in a row of the batch.

    In Doge's first layer equal tokens have equal mask values, and transformers keeps any one of the keys that tie.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(vocabulary, generator=generator)[:length] for _ in range(rows)])


@torch.no_grad()
def randomize(model: Any, seed: int = 0) -> None:
    """Give every tensor values that matter, and the logits unit scale (by the last norm, which every family has)."""
    generator = torch.Generator().manual_seed(seed)
    embedding = model.get_input_embeddings().weight
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter is embedding:
            parameter.copy_(noise)
        elif parameter.dim() == 2:
            parameter.copy_(noise * 1.2 / model.config.hidden_size**0.5)
        elif name.endswith(".bias"):
            parameter.copy_(0.5 * noise)
        elif name.endswith(".A"):
            # Not near zero, where Doge's mask values all but tie, and rounding decides which keys are kept.
            parameter.copy_(noise.sign() * 0.5 + 0.3 * noise)
        else:
            parameter.copy_(1 + 0.3 * noise)
    last_norm = [module for module in model.base_model.children() if "norm" in type(module).__name__.lower()][-1]
    scale = model(ids(2, 16, vocabulary=model.config.vocab_size)).logits.std()
    for parameter in last_norm.parameters():
        parameter.div_(scale)
