"""The devices of a run: this process's alone, or one for each process that `accelerate launch` or `torchrun` began."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from loquent.errors import MissingExtraError


class Devices:
    """What a loop needs to know of other processes; with one process every method is next to nothing."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = self._accelerator.process_index if self.count > 1 else 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and tells listeners."""
        return self.rank == 0

    @cached_property
    def _accelerator(self) -> Any:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise MissingExtraError("accelerate", "train", f"training on {self.count} devices") from error
        return Accelerator()

    def place(self, model: nn.Module) -> None:
        """Move the model to this process's device, where there are several."""
        if self.count > 1:
            model.to(self._accelerator.device)

    def replicate(self, objective: nn.Module) -> nn.Module:
        """The module to call in training: it averages gradients over the processes."""
        if self.count == 1:
            return objective
        replica: nn.Module = self._accelerator.prepare_model(objective)
        return replica

    def accumulate(self, replica: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients stay in this process inside, except in the last batch of a step."""
        if self.count == 1 or last:
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(replica)
        return context

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count == 1:
            return value
        total: Tensor = self._accelerator.reduce(value, "sum")
        return total

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()


def fast_bfloat16(device: str) -> str | None:
    """What makes products in bfloat16 fast on a device: an instruction set or the GPU; None where nothing does."""
    if device.startswith("cuda"):
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.cuda.get_device_name(device) if fast else None
    if device != "cpu" or not hasattr(torch.cpu, "_is_avx512_bf16_supported"):
        return None
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else None


def mixed_precision(device: torch.device, wanted: bool) -> AbstractContextManager[Any]:
    """Products in bfloat16 inside, where wanted."""
    # The cache would hand a copy of a weight from one accumulated batch to the next, and keep it from being freed.
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def use_threads(count: int) -> None:
    """Compute on so many threads of the CPU from now on."""
    torch.set_num_threads(count)


def threads() -> int:
    """On how many threads of the CPU is computed."""
    return torch.get_num_threads()
