"""A `.bin` file as `torch.save` writes it, checked and mapped like a safetensors file; needs no torch."""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

from loquent.errors import CheckpointError
from loquent.hub.safetensors_file import map_file
from loquent.hub.tensors import DTYPE_SIZES, TensorView
from loquent.hub.unpickler import PickledTensor, UnsafePickleError, read_pickle

# A description has about two hundred bytes per tensor.
_MAX_PICKLE = 32 * 2**20
# What `zipfile` raises for archives that are damaged, encrypted, or none.
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError)
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class TorchFile(Mapping[str, TensorView]):
    """The tensors of a `pytorch_model.bin` by name.

    Raises:
        CheckpointError: the file is damaged or in the format of before torch 1.6, or its pickle wants anything but
            tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self._map: mmap.mmap | None = None
        self._size = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                self._root = self._find_root()
                self._tensors = read_pickle(self._read_small(archive, f"{self._root}/data.pkl", _MAX_PICKLE))
                self._check_order(archive)
        except (*_DAMAGE, struct.error) as error:
            raise self._refused(
                f"it is damaged, or in the format of before torch 1.6 ({error}). Where you trust it, convert it with "
                "torch: torch.save(torch.load(path, weights_only=True), path)"
            ) from error
        except UnsafePickleError as error:
            raise self._refused(
                f"{error}, which weights do not need and may be an attack. Ask for safetensors"
            ) from error
        for name, tensor in self._tensors.items():
            self._check(name, tensor)

    def __getitem__(self, name: str) -> TensorView:
        tensor = self._tensors[name]
        return TensorView(name, tensor.storage.dtype, tensor.shape, lambda: self._elements(tensor))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def _refused(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be loaded: {reason}.")

    def _find_root(self) -> str:
        roots = [name.removesuffix("/data.pkl") for name in self._entries if name.count("/") == 1]
        found = [root for root in roots if f"{root}/data.pkl" in self._entries]
        if not found:
            raise self._refused("it is an archive without the data.pkl of a checkpoint. Download it again")
        return found[0]

    def _read_small(self, archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
        entry = self._entries[name]
        if max(entry.file_size, entry.compress_size) > largest or entry.compress_type != zipfile.ZIP_STORED:
            raise self._refused(f"its {name} is larger than any description of tensors, or compressed")
        return archive.read(entry)

    def _check_order(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._root}/byteorder"
        if name in self._entries and self._read_small(archive, name, 16) != b"little":
            raise self._refused("it was written on a big-endian machine. Save it again on another")

    def _check(self, name: str, tensor: PickledTensor) -> None:
        entry = self._entries.get(f"{self._root}/data/{tensor.storage.key}")
        size = DTYPE_SIZES[tensor.storage.dtype]
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise self._refused(f"the data of {name!r} is absent or compressed. Download it again")
        if entry.header_offset + entry.file_size > self._size:
            raise self._refused("it is truncated. Download it again")
        if entry.file_size < tensor.storage.numel * size:
            raise self._refused(f"the data of {name!r} is shorter than its pickle says. Download it again")
        last = tensor.offset + sum((count - 1) * step for count, step in zip(tensor.shape, tensor.stride))
        count = prod(tensor.shape)
        # More elements than the storage has would be repeated ones: a tiny file that asks for any amount of memory.
        if count and (last >= tensor.storage.numel or count > tensor.storage.numel):
            raise self._refused(f"{name!r} reaches past the end of its data, or repeats it. Save it again, contiguous")

    def _elements(self, tensor: PickledTensor) -> memoryview:
        import numpy as np

        size, count = DTYPE_SIZES[tensor.storage.dtype], prod(tensor.shape)
        if not count:
            return memoryview(bytearray())
        storage = self._storage(tensor)
        if tensor.stride == _row_major(tensor.shape):
            return storage[tensor.offset * size : (tensor.offset + count) * size]
        # Not in row-major order in the file: this one is gathered into memory of its own.
        elements = np.frombuffer(storage, dtype=f"V{size}")[tensor.offset :]
        steps = [step * size for step in tensor.stride]
        view = np.lib.stride_tricks.as_strided(elements, tensor.shape, steps, writeable=False)
        return memoryview(bytearray(view.tobytes()))

    def _storage(self, tensor: PickledTensor) -> memoryview:
        if self._map is None:
            self._map = map_file(self.path)
        entry = self._entries[f"{self._root}/data/{tensor.storage.key}"]
        header = self._map[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
        if len(header) < _LOCAL_HEADER.size:
            raise self._refused("it is truncated. Download it again")
        signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        length = tensor.storage.numel * DTYPE_SIZES[tensor.storage.dtype]
        if signature != b"PK\x03\x04" or start + length > len(self._map):
            raise self._refused("it is truncated or damaged. Download it again")
        return memoryview(self._map)[start : start + length]


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
