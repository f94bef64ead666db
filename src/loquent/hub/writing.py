"""Writing checkpoints as safetensors, tensor by tensor; does not decide what the tensors are called.

Peak memory is what the caller makes for one tensor: the header needs types and shapes alone, and the bytes are asked
for one tensor at a time as they are written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError
from loquent.hub.checkpoint import SAFETENSORS, SAFETENSORS_INDEX
from loquent.hub.files import replacing, write_text
from loquent.hub.tensors import DTYPE_SIZES
from loquent.sizes import parse_size

_LENGTH_BYTES = 8
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor to write; `bytes` is called once, when its turn comes, and gives the elements in row-major order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return prod(self.shape) * DTYPE_SIZES[self.dtype]


def write_checkpoint(
    folder: str | os.PathLike[str],
    tensors: Iterable[TensorToWrite],
    *,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    alignment: int | None = None,
) -> list[Path]:
    """Writes tensors into a folder under the names that transformers gives files, and removes an older save's files.

    Every file is whole or absent at any moment; the index comes last. Reading a checkpoint that this replaces goes
    on reading the old one.

    Args:
        folder: an existing folder.
        tensors: what to write, in the order in which to fill the shards.
        max_shard_size: bytes, or such as "5GB" or "500MiB"; a larger tensor has a file of its own.
        metadata: what the files say of themselves (`{"format": "pt"}` if None).
        alignment: see `write_safetensors`.

    Returns:
        The files written, the index among them.

    Raises:
        ArgumentError: `max_shard_size` is no size, or two tensors have one name.
        ValueError: the bytes of a tensor are not as many as its type and shape say.
    """
    path = Path(folder)
    split = _split(list(tensors), parse_size(max_shard_size, "max_shard_size"))
    names = [SAFETENSORS]
    if len(split) > 1:
        names = [f"model-{number:05d}-of-{len(split):05d}.safetensors" for number in range(1, len(split) + 1)]
    for name, shard in zip(names, split):
        write_safetensors(path / name, shard, metadata, alignment)
    written = [path / name for name in names]
    if len(split) > 1:
        write_text(path / SAFETENSORS_INDEX, _index(names, split))
        written.append(path / SAFETENSORS_INDEX)
    for old in path.iterdir():
        if old not in written and (old.name in {SAFETENSORS, SAFETENSORS_INDEX} or _SHARD.fullmatch(old.name)):
            old.unlink()
    return written


def write_safetensors(
    path: Path,
    tensors: Sequence[TensorToWrite],
    metadata: Mapping[str, str] | None = None,
    alignment: int | None = None,
) -> None:
    """Writes one safetensors file, whole or not at all.

    With `alignment`, tensors whose size is a multiple of so many bytes begin at such a multiple in the file, and are
    written before the others and in the order given. Without, the widest types come first.

    Raises:
        ArgumentError: two tensors have one name.
        ValueError: the bytes of a tensor are not as many as its type and shape say.
    """
    if alignment is None:
        # The order of the safetensors library: the widest types first, so that every tensor is aligned.
        ordered = sorted(tensors, key=lambda tensor: (-DTYPE_SIZES[tensor.dtype], tensor.name))
    else:
        ordered = sorted(tensors, key=lambda tensor: tensor.nbytes % alignment != 0)
    header: dict[str, Any] = {"__metadata__": dict(metadata if metadata is not None else {"format": "pt"})}
    position = 0
    for tensor in ordered:
        if tensor.name in header:
            raise ArgumentError(f"two tensors are called {tensor.name!r}. Give each its own name.")
        end = position + tensor.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(_LENGTH_BYTES + len(text)) % (alignment or 8))
    with replacing(path) as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        file.write(text)
        for tensor in ordered:
            data = memoryview(tensor.bytes())
            if data.nbytes != tensor.nbytes:
                raise ValueError(f"{tensor.name!r} gave {data.nbytes} bytes, not the {tensor.nbytes} of its shape")
            file.write(data.cast("B") if data.nbytes else b"")


def _split(tensors: Sequence[TensorToWrite], largest: int) -> list[list[TensorToWrite]]:
    """The tensors of each file. Files come in the order in which they are full, as from transformers."""
    split: list[list[TensorToWrite]] = []
    current: list[TensorToWrite] = []
    size = 0
    for tensor in tensors:
        if tensor.nbytes > largest:
            split.append([tensor])
            continue
        if size + tensor.nbytes > largest:
            split.append(current)
            current, size = [], 0
        current.append(tensor)
        size += tensor.nbytes
    return [*split, current] if current or not split else split


def _index(names: Sequence[str], split: Sequence[Sequence[TensorToWrite]]) -> str:
    everything = [tensor for shard in split for tensor in shard]
    index = {
        "metadata": {
            "total_parameters": sum(prod(tensor.shape) for tensor in everything),
            "total_size": sum(tensor.nbytes for tensor in everything),
        },
        "weight_map": {tensor.name: name for name, shard in zip(names, split) for tensor in shard},
    }
    return json.dumps(index, indent=2, sort_keys=True) + "\n"
