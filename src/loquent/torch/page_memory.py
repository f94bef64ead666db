"""Memory for tensors of pages, which grow and shrink row by row: a device's, its host's, a mapped file, or lent."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Protocol
from weakref import finalize

import torch
from torch import Tensor

from loquent.cache.files import reserve, unnamed_file
from loquent.errors import CapacityError
from loquent.sizes import shown_size
from loquent.torch.side_copies import SideCopies


class Column(Protocol):
    """One tensor's memory."""

    @property
    def tensor(self) -> Tensor:
        """(rows, ...); resizing makes another one, and the one before it must not be used any more."""

    def resize(self, rows: int) -> None:
        """Have so many rows; those below both counts keep their content, new ones are zeros.

        Raises:
            CapacityError: there is no room; nothing has changed.
        """


class PageMemory(Protocol):
    """Where the tensors of a store are."""

    place: str
    """Whose memory it is, as `engine.backend.Store.place` says it."""

    device: torch.device
    """Where torch finds it."""

    def column(self, shape: Sequence[int], dtype: torch.dtype) -> Column:
        """A tensor's, without rows yet; a row has this shape."""


class DeviceMemory:
    """Memory of a device that torch knows."""

    place = "memory"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def column(self, shape: Sequence[int], dtype: torch.dtype) -> Column:
        """A tensor's, without rows yet."""
        return _DeviceColumn(self, shape, dtype)

    def zeros(self, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Rows of zeros."""
        return torch.zeros(rows, *shape, dtype=dtype, device=self.device)


class _DeviceColumn:
    def __init__(self, memory: DeviceMemory, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._memory = memory
        self.tensor = self._zeros(0, shape, dtype)

    def resize(self, rows: int) -> None:
        kept = self.tensor[:rows]
        grown = self._zeros(rows, kept.shape[1:], kept.dtype)
        grown[: len(kept)] = kept
        self.tensor = grown

    def _zeros(self, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        with torch.inference_mode(False):  # a plain tensor, whoever asks: training may read it too
            return self._memory.zeros(rows, shape, dtype)


class FileMemory:
    """Files without names, one for each tensor, so that growing copies nothing; the system keeps in memory what fits.

    Args:
        folder: where they are; None: the system's folder for temporary files.
    """

    place = "file"
    device = torch.device("cpu")

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def column(self, shape: Sequence[int], dtype: torch.dtype) -> Column:
        """A tensor's, without rows yet.

        Raises:
            ArgumentError: no file can be made in the folder.
        """
        return _FileColumn(self._folder, shape, dtype)


class _FileColumn:
    def __init__(self, folder: str | None, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._folder, self._file, self._process = folder, unnamed_file(folder), os.getpid()
        finalize(self, self._file.close)
        self._row = torch.empty(0, *shape, dtype=dtype)
        self._mapped = self._row

    @property
    def tensor(self) -> Tensor:
        self._check_process()
        return self._mapped

    def resize(self, rows: int) -> None:
        self._check_process()
        file = self._file.fileno()
        numbers = rows * self._row.shape[1:].numel()
        size, held = numbers * self._row.element_size(), os.fstat(file).st_size
        if size > held:
            reserve(file, held, size, self._folder)
        if not rows:
            self._mapped = self._row
        else:
            with torch.inference_mode(False):
                whole = torch.from_file(f"/dev/fd/{file}", shared=True, size=numbers, dtype=self._row.dtype)
            self._mapped = whole.view(rows, *self._row.shape[1:])
        if size < held:
            os.ftruncate(file, size)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                "a store in a file belongs to the process that opened it. Open another engine in this one."
            )


class HostMemory(DeviceMemory):
    """Memory of the host of a device, from which pages are brought to it."""

    place = "host"

    def __init__(self, copies: SideCopies) -> None:
        super().__init__(torch.device("cpu"))
        self._copies = copies

    def zeros(self, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Rows of zeros.

        Raises:
            CapacityError: the host has no room for them.
        """
        try:
            return self._copies.host_zeros((rows, *shape), dtype)
        except RuntimeError as error:
            size = shown_size(rows * math.prod(shape) * dtype.itemsize)
            raise CapacityError(
                f"The host has no room for {size} more of offloaded keys and values ({str(error).splitlines()[0]}). "
                "Ask for a shorter context, or for fewer requests at once."
            ) from error


class LentMemory:
    """A buffer, lent to tensors part by part: resizing gives a tensor a part of its own, with whatever is there."""

    place = "memory"
    alignment = 256  # bytes, at most so many are skipped between tensors

    def __init__(self, buffer: Tensor) -> None:
        self.device, self._buffer, self._used = buffer.device, buffer, 0

    def column(self, shape: Sequence[int], dtype: torch.dtype) -> Column:
        """A tensor's, without rows yet."""
        return _LentColumn(self, shape, dtype)

    def lend(self, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The next part of the buffer."""
        start = self._used
        stop = start + rows * math.prod(shape) * dtype.itemsize
        self._used = -(-stop // self.alignment) * self.alignment
        return self._buffer[start:stop].view(dtype).view(rows, *shape)


class _LentColumn:
    def __init__(self, memory: LentMemory, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._memory = memory
        self.tensor = torch.empty(0, *shape, dtype=dtype, device=memory.device)

    def resize(self, rows: int) -> None:
        self.tensor = self._memory.lend(rows, self.tensor.shape[1:], self.tensor.dtype)
