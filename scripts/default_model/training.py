"""Training the default model: sequences cut from the corpus, two optimizers, a schedule, and a loop that can resume.

Matrices inside the blocks are trained by Muon (Jordan and others, 2024; `torch.optim.Muon`), everything else by AdamW.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent import DogeConfig, DogeForCausalLM


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the trained model is, beside its text."""

    vocabulary: int = 4096
    width: int = 160
    mlp_width: int = 448
    layers: int = 4
    heads: int = 4
    positions: int = 2048
    length: int = 256  # of the sequences, and how far back attention reaches
    rows: int = 16  # sequences in a step
    steps: int = 3300
    warm_up: int = 80
    decay: float = 0.6  # the share of the steps in which the learning rate falls to zero, at the end
    matrix_rate: float = 0.02
    rate: float = 0.004
    weight_decay: float = 0.05
    clip: float = 1.0
    seed: int = 20

    def config(self) -> DogeConfig:
        """The model's config; attention over a window keeps texts longer than the sequences as they were learned."""
        return DogeConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.positions,
            sliding_window=self.length,
            keep_window_size=self.positions,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
        )


def sequences(tokens: NDArray[np.uint16], is_break: NDArray[np.bool_], recipe: Recipe) -> Iterator[Tensor]:
    """Batches (rows, length) without end, every sequence once in each round.

    `is_break[id]` says after which tokens a paragraph starts: sequences start there where one is near, as prompts do.
    """
    random = np.random.default_rng(recipe.seed)
    starts = np.flatnonzero(is_break[tokens[:-1]]) + 1
    left = np.empty(0, np.int64)
    while True:
        while len(left) < recipe.rows:
            grid = np.arange(random.integers(recipe.length), len(tokens) - recipe.length, recipe.length)
            near = starts[np.maximum(np.searchsorted(starts, grid, side="right") - 1, 0)]
            cuts = np.where(grid - near < recipe.length // 4, near, grid)
            left = np.concatenate([left, random.permutation(np.maximum(cuts, 0))])
        chosen, left = left[: recipe.rows], left[recipe.rows :]
        yield torch.from_numpy(tokens[chosen[:, None] + np.arange(recipe.length)].astype(np.int64))


def train(
    model: DogeForCausalLM, batches: Iterator[Tensor], recipe: Recipe, checkpoint: Path, *, stop: int | None = None
) -> float:
    """Train in place, resuming from `checkpoint` where it exists; returns the seconds spent, also before resuming."""
    optimizers = _optimizers(model, recipe)
    done, spent, loss_sum = 0, 0.0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        done, spent = state["step"], state["seconds"]
    since = time.monotonic()
    model.train()
    for step, batch in zip(range(min(recipe.steps, stop or recipe.steps)), batches):
        if step < done:
            continue
        loss_sum += _step(model, batch, optimizers, recipe, _factor(step, recipe))
        if (step + 1) % 50 == 0:
            seconds = spent + time.monotonic() - since
            print(f"step {step + 1}/{recipe.steps}  loss {loss_sum / 50:.3f}  {seconds:.0f} s", flush=True)
            loss_sum = 0.0
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            seconds = spent + time.monotonic() - since
            _save(checkpoint, model, optimizers, step + 1, seconds)
    model.eval()
    return spent + time.monotonic() - since


def _optimizers(model: DogeForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [p for name, p in named if ".blocks." in name and p.dim() == 2 and min(p.shape) > recipe.heads]
    inside = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, momentum=0.95),
        torch.optim.AdamW(rest, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _factor(step: int, recipe: Recipe) -> float:
    """The learning rate's factor: a warm-up, a plateau, a straight line to zero."""
    left = (recipe.steps - step) / (recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / recipe.warm_up, left)


def _step(
    model: DogeForCausalLM, batch: Tensor, optimizers: list[torch.optim.Optimizer], recipe: Recipe, factor: float
) -> float:
    for optimizer, rate in zip(optimizers, (recipe.matrix_rate, recipe.rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return float(loss.detach())


def _save(
    path: Path, model: DogeForCausalLM, optimizers: list[torch.optim.Optimizer], step: int, seconds: float
) -> None:
    """Replace the checkpoint in one move, so that there is always a whole one."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "seconds": seconds,
    }
    new = path.with_suffix(".new")
    torch.save(state, new)
    new.replace(path)
