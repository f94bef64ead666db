"""The tensors of a checkpoint by name, from one file or many; knows neither models nor their names for things."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loquent.errors import CheckpointError
from loquent.hub.index import read_index, shards
from loquent.hub.resolve import HubKeywords, local_folder, resolve_file, resolve_folder
from loquent.hub.safetensors_file import SafetensorsFile
from loquent.hub.tensors import TensorView

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.hub.torch_file import TorchFile

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TORCH = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"

# The first that is there is read: pickles only where there is nothing else.
_IN_ORDER = (SAFETENSORS, SAFETENSORS_INDEX, TORCH, TORCH_INDEX)


class Checkpoint(Mapping[str, TensorView]):
    """The tensors of a checkpoint by name.

    folder: where its files are.
    files: the weight files.
    metadata: what the first safetensors file says of itself (`{"format": "pt"}`).
    """

    def __init__(self, folder: Path, files: list[SafetensorsFile | TorchFile]) -> None:
        self.folder = folder
        self.files = tuple(file.path for file in files)
        self.metadata: dict[str, str] = dict(files[0].metadata) if files else {}
        self._where: dict[str, SafetensorsFile | TorchFile] = {}
        for file in files:
            for name in file:
                if name in self._where:
                    raise CheckpointError(
                        f"{name!r} is both in {self._where[name].path.name} and in {file.path.name} of {folder}. "
                        "The checkpoint is damaged, or files of two were mixed; download it again."
                    )
                self._where[name] = file

    def __getitem__(self, name: str) -> TensorView:
        return self._where[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    @property
    def nbytes(self) -> int:
        """The size of all tensors in bytes, as stored."""
        return sum(tensor.nbytes for tensor in self.values())


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Opens the checkpoint in a folder; reads and checks headers and the index, and no tensor.

    Looks for `model.safetensors`, `model.safetensors.index.json`, and where neither is there for `pytorch_model.bin`
    and `pytorch_model.bin.index.json`, which are read without running the code that a pickle may hold.

    Raises:
        CheckpointError: there is no checkpoint, or one that is damaged or lacks files or tensors that it names.
    """
    path = Path(folder)
    for name in _IN_ORDER:
        if (path / name).is_file():
            if name.endswith(".index.json"):
                return _open_sharded(path, name)
            return Checkpoint(path, [open_file(path / name)])
    raise CheckpointError(f"{path} has no weights: none of {', '.join(_IN_ORDER)} is there. Is this a model's folder?")


def resolve_checkpoint(name_or_path: str | os.PathLike[str], **hub: Unpack[HubKeywords]) -> Path:
    """The folder of a model's weights, downloaded if need be: the files that `open_checkpoint` reads, and no others.

    Raises:
        CheckpointError: a local folder has no weights, or the repository's index is damaged.
        HubError: the name could not be resolved, or the repository has no weights.
    """
    if local_folder(name_or_path) is not None:
        return resolve_folder(name_or_path, **hub)
    for name in _IN_ORDER[:-1]:
        found = resolve_file(name_or_path, name, required=False, **hub)
        if found is not None:
            break
    else:
        # The last one is required, so that the error is the hub's.
        name = _IN_ORDER[-1]
        found = resolve_file(name_or_path, name, **hub)
    if found is None or not name.endswith(".index.json"):
        return resolve_folder(name_or_path, [name], **hub) if found is None else found.parent
    return resolve_folder(name_or_path, [name, *sorted(set(read_index(found).values()))], **hub)


def _open_sharded(folder: Path, index_name: str) -> Checkpoint:
    weight_map = read_index(folder / index_name)
    checkpoint = Checkpoint(folder, [open_file(path) for path in shards(folder, weight_map)])
    absent = sorted(
        name
        for name, shard in weight_map.items()
        if name not in checkpoint or checkpoint._where[name].path.name != shard
    )
    if absent:
        listed = ", ".join(absent[:20]) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
        raise CheckpointError(
            f"{folder / index_name} names {len(absent)} tensors that are not in the files it names for them: {listed}. "
            "Download the checkpoint again."
        )
    return checkpoint


def open_file(path: Path) -> SafetensorsFile | TorchFile:
    """Opens one file of tensors, by its suffix: safetensors, or what torch saves; reads and checks its header.

    Raises:
        CheckpointError: it is damaged, or its pickle wants anything but tensors.
    """
    if path.suffix != ".bin":
        return SafetensorsFile(path)
    from loquent.hub.torch_file import TorchFile  # with all that reads archives and pickles

    return TorchFile(path)
