"""Writes the models: a random GPT-2 124M, two that are easy to draft for, and a draft; all in the Hugging Face format.

Run in an environment that has loquent[torch]: python -m strategies.checkpoints MODEL FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cpu.checkpoints import write_tokenizer
from cpu.shapes import NO_ENDS
from strategies.cases import CYCLE, DRAFT_DEPTH

MODELS = ("plain", "damped", "draft", "copying")
DAMPING = 0.01

SURE = 16.0
"""How far the logits of random weights are drawn apart, so that drafts are as sure of themselves as trained ones."""


def random_model(**fields: Any) -> Any:
    """Weights as GPT-2's are drawn, but surer logits, and layers doubled, so that attention is not flat."""
    import torch

    import loquent

    torch.manual_seed(0)
    model = loquent.GPT2LMHeadModel(loquent.GPT2Config(**NO_ENDS, **fields))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and ".blocks." in name:
            parameter.data.mul_(2)
    model.transformer.norm.weight.data.mul_(SURE)
    return model


def damp(blocks: Any) -> None:
    """Let blocks add a hundredth of what they would."""
    for block in blocks:
        for projection in (block.attention.output, block.mlp.down):
            projection.weight.data.mul_(DAMPING)
            projection.bias.data.mul_(DAMPING)


def damped() -> Any:
    """The first layers decide; the others hardly change it."""
    model = random_model()
    damp(model.transformer.blocks[DRAFT_DEPTH:])
    return model


def draft() -> Any:
    """The damped model's first layers, its embeddings and its head, as a model of their own."""
    whole = damped()
    model = random_model(n_layer=DRAFT_DEPTH)
    known = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name in known})
    return model


def copying() -> Any:
    """After each token comes the next of its cycle of ids, whatever stands before: texts repeat their prompts."""
    import torch

    model = random_model(tie_word_embeddings=False)
    damp(model.transformer.blocks)
    ids = torch.arange(model.config.vocab_size // CYCLE * CYCLE)
    with torch.no_grad():
        model.transformer.positions.weight.zero_()
        model.head.weight.zero_()
        model.head.weight[ids // CYCLE * CYCLE + (ids + 1) % CYCLE] = model.transformer.tokens.weight[ids]
    return model


def write(name: str, folder: Path) -> None:
    """One of MODELS."""
    model = {"plain": random_model, "damped": damped, "draft": draft, "copying": copying}[name]()
    model.save_pretrained(folder)
    write_tokenizer(model.config.vocab_size, folder)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
