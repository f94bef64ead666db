"""Copies between the host and a model's device, beside its computing where the device can do both at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Where numbers are copied to, and where they are: of one shape and type."""


class Mark(Protocol):
    """Some copies, to be waited for."""


class SideCopies(Protocol):
    """Copies that are made one after the other, in the order in which they are asked for."""

    def host_zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host, as copies are fastest with."""

    def copy(self, pairs: Iterable[Pair]) -> Mark:
        """Copy, once what has been computed so far is there. Sources are not to change before the copies are made."""

    def wait(self, mark: Mark) -> None:
        """What is computed from now on sees the copies up to the mark."""

    def keep(self, tensor: Tensor) -> None:
        """Memory of the device that copies use: it is not given to another tensor before they are made."""

    def finish(self) -> None:
        """Wait, on the host, for all copies."""


class InLine:
    """Copies that are made at once: of devices on which nothing runs beside computing."""

    def host_zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the host."""
        return torch.zeros(*shape, dtype=dtype)

    def copy(self, pairs: Iterable[Pair]) -> Mark:
        """Copy."""
        for target, source in pairs:
            target.copy_(source)
        return self

    def wait(self, mark: Mark) -> None:
        """All copies have been made."""

    def keep(self, tensor: Tensor) -> None:
        """All copies have been made."""

    def finish(self) -> None:
        """All copies have been made."""


class SideStream:
    """Copies on a stream of their own of a CUDA device, to and from pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Pinned memory."""
        return torch.zeros(*shape, dtype=dtype, pin_memory=True)

    def copy(self, pairs: Iterable[Pair]) -> Mark:
        """Copy, once what has been computed so far is there."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        mark: torch.cuda.Event = self._stream.record_event()
        return mark

    def wait(self, mark: Mark) -> None:
        """What is computed from now on sees the copies up to the mark."""
        assert isinstance(mark, torch.cuda.Event)
        torch.cuda.current_stream(self._device).wait_event(mark)

    def keep(self, tensor: Tensor) -> None:
        """The device's memory is not given to another tensor before the copies are made."""
        tensor.record_stream(self._stream)

    def finish(self) -> None:
        """Wait, on the host, for all copies."""
        self._stream.synchronize()


def side_copies(device: torch.device) -> SideCopies:
    """Those of a device."""
    return SideStream(device) if device.type == "cuda" else InLine()
