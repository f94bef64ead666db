"""One safetensors file, checked whole before a byte of a tensor is touched; reads only.

The format is https://github.com/huggingface/safetensors#format: eight bytes of length, a JSON header, the data. The
`safetensors` library would map it too, but has no views of types that numpy lacks without torch.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from loquent.errors import CheckpointError
from loquent.hub.tensors import DTYPE_SIZES, TensorView

# The format's own cap. A header has about a hundred bytes per tensor.
_MAX_HEADER = 100_000_000
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """A tensor's place: `start` and `end` count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile(Mapping[str, TensorView]):
    """The tensors of a safetensors file by name, in the order of the file.

    Opening reads and checks the header alone; the file is mapped when a tensor's bytes are asked for.

    Args:
        path: the file.
        max_header: the most bytes that its header may have.

    Raises:
        CheckpointError: the file is truncated, damaged, or lies about its sizes.
    """

    def __init__(self, path: Path, max_header: int = _MAX_HEADER) -> None:
        self.path = path
        self.entries, self.metadata = _read_header(path, max_header)
        self._map: mmap.mmap | None = None

    def __getitem__(self, name: str) -> TensorView:
        entry = self.entries[name]
        return TensorView(name, entry.dtype, entry.shape, lambda: self._slice(entry))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _slice(self, entry: Entry) -> memoryview:
        if entry.start == entry.end:
            return memoryview(bytearray())
        if self._map is None:
            self._map = map_file(self.path)
        if len(self._map) < entry.end:
            raise CheckpointError(f"{self.path} became shorter after it was opened. Load it again.")
        return memoryview(self._map)[entry.start : entry.end]


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, read from the disk as they are touched; writes stay private to the process.

    The operating system may drop pages that were only read at any time, so they take no anonymous memory.
    """
    with path.open("rb") as file:
        # Private rather than read-only: libraries warn of, or refuse, memory that they cannot write to.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Where the file comes from the disk now, Linux may keep it in pages of 2 MiB, for all processes: a step of one
        # sequence that reads all weights takes 5 to 8 % less time than with small ones, which must be looked up.
        with suppress(OSError):  # a kernel without them
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped


def _read_header(path: Path, longest: int) -> tuple[dict[str, Entry], dict[str, str]]:
    size = os.path.getsize(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise _damaged(path, f"its header claims {length:,} bytes, but the file has {size:,}; it may be truncated")
        if length > longest:
            raise _damaged(path, f"its header claims {length:,} bytes, more than the {longest:,} that are allowed")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not valid ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata is not a mapping of texts")
    data = _LENGTH_BYTES + length
    entries = {name: _entry(path, name, item, data) for name, item in header.items()}
    _check_contiguous(path, entries, data, size)
    return entries, metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} occurs twice")
        found[name] = value
    return found


def _entry(path: Path, name: str, item: Any, data: int) -> Entry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_SIZES:
        raise _damaged(path, f"{name!r} is of the unknown type {dtype!r}")
    if not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise _damaged(path, f"{name!r} has a shape or offsets that are not sizes")
    start, end = offsets
    # Python's integers do not overflow, so a product that would wrap around elsewhere is simply not equal.
    if end - start != prod(shape) * DTYPE_SIZES[dtype]:
        raise _damaged(path, f"{name!r} has {end - start:,} bytes, which are not those of {dtype} {shape}")
    return Entry(dtype, tuple(shape), data + start, data + end)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_contiguous(path: Path, entries: Mapping[str, Entry], data: int, size: int) -> None:
    position = data
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            raise _damaged(path, f"{name!r} overlaps another tensor or leaves a gap before it")
        position = entry.end
    if position > size:
        raise _damaged(path, f"its tensors end at byte {position:,}, but the file has {size:,}; it may be truncated")
    if position < size:
        raise _damaged(path, f"{size - position:,} bytes follow its last tensor")


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a sound safetensors file: {reason}. Download or save it again.")
