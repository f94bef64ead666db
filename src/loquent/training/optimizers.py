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


def check_optimizer(model: PreTrainedModel, arguments: TrainingArguments) -> None:
    """Refuse an optimizer that would have nothing to move.

    Raises:
        ArgumentError: nothing is trainable, or nothing that Muon moves, or this torch has no Muon.
    """
    if not _trainable(model):
        raise ArgumentError("model has no parameter with requires_grad=True: there is nothing to train.")
    if arguments.optim == "adamw":
        return
    if not hasattr(torch.optim, "Muon"):
        raise ArgumentError(f"optim='muon' needs PyTorch 2.9 or newer, this is {torch.__version__}. Use optim='adamw'.")
    if not _matrices(model):
        raise ArgumentError(
            "optim='muon' moves the matrices of the blocks, and none of them has requires_grad=True. Use optim='adamw'."
        )


def make_optimizers(model: PreTrainedModel, arguments: TrainingArguments) -> list[Optimizer]:
    """What moves the model's trainable parameters.

    Raises:
        ArgumentError: as `check_optimizer`.
    """
    check_optimizer(model, arguments)
    if arguments.optim == "adamw":
        return [_adamw(_trainable(model), arguments)]
    matrices = _matrices(model)
    others = [weight for weight in _trainable(model) if id(weight) not in {id(matrix) for matrix in matrices}]
    muon = torch.optim.Muon(
        matrices,
        lr=arguments.learning_rate,
        momentum=arguments.muon_momentum,
        weight_decay=arguments.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, _adamw(others, arguments)] if others else [muon]


def _trainable(model: PreTrainedModel) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """What Muon moves."""
    return [weight for weight in model.stack.blocks.parameters() if weight.requires_grad and weight.dim() == 2]


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
