"""What is minimized: the cross entropy of the counted tokens of a batch of packs, as a module to replicate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from loquent.torch.batch import make_packed_batch
from loquent.torch.linear_cross_entropy import linear_cross_entropy

if TYPE_CHECKING:
    from loquent.torch.causal import CausalLM
    from loquent.training.data.packing import PackedBatch

_UNCOUNTED = -100


@dataclass(frozen=True)
class Batch:
    """A batch of packs on its device; tensors are (packs, tokens)."""

    ids: Tensor
    documents: Tensor
    lengths: list[int]
    places: Tensor
    """Which of the flattened tokens have something to predict, (counted,)."""
    answers: Tensor
    """What that is, (counted,)."""


def on_device(packed: PackedBatch, device: torch.device) -> Batch:
    """The tensors of a batch of packs."""
    targets = packed.targets.ravel()
    places = np.flatnonzero(targets != _UNCOUNTED)
    starts = np.flatnonzero(packed.positions.ravel() == 0)
    lengths = np.diff(np.append(starts, targets.size)).tolist()
    ids, documents = torch.from_numpy(packed.ids), torch.from_numpy(packed.segments)
    answers = torch.from_numpy(targets[places])
    move = [tensor.to(device, non_blocking=True) for tensor in (ids, documents, torch.from_numpy(places), answers)]
    return Batch(move[0], move[1], lengths, move[2], move[3])


class Objective(nn.Module):
    """The sum of the counted tokens' cross entropies."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The sum over a batch, float32."""
        model = self.model
        read = make_packed_batch(
            model.decoder, batch.documents, batch.lengths, model.base_model.frequencies, model.dtype
        )
        hidden, _ = model.stack.read(batch.ids.flatten(), read)  # (tokens, width)
        wanted = hidden if len(batch.places) == len(hidden) else hidden.index_select(0, batch.places)
        return linear_cross_entropy(wanted, model.head.weight, model.head.bias, batch.answers)
