"""The loss on held-out packs; nothing is learned from them."""

from __future__ import annotations

import torch
from torch import nn

from loquent.training.arguments import TrainingArguments
from loquent.training.data.packing import Packs
from loquent.training.devices import Devices, mixed_precision
from loquent.training.objective import on_device


@torch.no_grad()
def mean_loss(
    objective: nn.Module, packs: Packs, arguments: TrainingArguments, devices: Devices, device: torch.device
) -> float:
    """The mean loss (nats) of a counted token of all packs, which the devices share."""
    rows = arguments.per_device_eval_batch_size
    mine = range(devices.rank, len(packs), devices.count)
    total = torch.zeros((), dtype=torch.float64, device=device)
    training = objective.training
    objective.eval()
    try:
        for start in range(0, len(mine), rows):
            batch = on_device(packs.batch(list(mine[start : start + rows])), device)
            with mixed_precision(device, arguments.bf16):
                total += objective(batch)
    finally:
        objective.train(training)
    return float(devices.sum(total)) / int(packs.counted.sum())
