"""The optimizers of a run, and which parameters each has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from loquent.errors import ArgumentError
from loquent.training.arguments import TrainingArguments

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel


def make_optimizers(model: PreTrainedModel, arguments: TrainingArguments) -> list[Optimizer]:
    """What moves the model's trainable parameters.

    Raises:
        ArgumentError: nothing is trainable, or this torch has no such optimizer.
    """
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    if not trainable:
        raise ArgumentError("model has no parameter with requires_grad=True: there is nothing to train.")
    if arguments.optim == "adamw":
        return [_adamw(trainable, arguments)]
    if not hasattr(torch.optim, "Muon"):
        raise ArgumentError(f"optim='muon' needs PyTorch 2.9 or newer, this is {torch.__version__}. Use optim='adamw'.")
    inside = {id(weight) for weight in model.stack.blocks.parameters()}
    matrices = [weight for weight in trainable if id(weight) in inside and weight.dim() == 2]
    others = [weight for weight in trainable if id(weight) not in {id(matrix) for matrix in matrices}]
    muon = torch.optim.Muon(
        matrices,
        lr=arguments.learning_rate,
        momentum=arguments.muon_momentum,
        weight_decay=arguments.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw(others, arguments)] if others else [muon]


def _adamw(weights: list[nn.Parameter], arguments: TrainingArguments) -> Optimizer:
    decaying = [weight for weight in weights if weight.dim() >= 2]
    fixed = [weight for weight in weights if weight.dim() < 2]
    groups = [
        {"params": some, "weight_decay": decay}
        for some, decay in ((decaying, arguments.weight_decay), (fixed, 0.0))
        if some
    ]
    return AdamW(
        groups,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        fused=True,
    )
