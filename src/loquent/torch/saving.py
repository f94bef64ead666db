"""From a torch model to a folder or a hub: config, generation config, and weights under the checkpoint's own names."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loquent.config.generation import GENERATION_CONFIG_FILE
from loquent.config.json_file import saving_folder
from loquent.config.reading import CONFIG_FILE
from loquent.errors import ArgumentError
from loquent.hub.push import push_folder, repository_of
from loquent.hub.writing import TensorToWrite, write_checkpoint
from loquent.torch.adapters.files import save_adapter
from loquent.torch.adapters.layer import adapted_layers
from loquent.torch.loading import FILE_DTYPES, wanted_tensors
from loquent.torch.options import name_of

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel


def save_model(
    model: PreTrainedModel,
    save_directory: str | os.PathLike[str],
    *,
    max_shard_size: int | str = "5GB",
    safe_serialization: bool = True,
    push_to_hub: bool = False,
    **push: Any,
) -> None:
    """Write a model into a folder; see `PreTrainedModel.save_pretrained`."""
    if not safe_serialization:
        raise ArgumentError("safe_serialization=False would pickle the weights. Loquent saves safetensors only.")
    if push and not push_to_hub:
        raise TypeError(f"save_pretrained() got unexpected keyword arguments {sorted(push)}")
    folder = saving_folder(save_directory)
    written = _write_adapter(model, folder) if _adapts(model) else _write_model(model, folder, max_shard_size)
    if push_to_hub:
        repository = push.pop("repo_id", None) or repository_of(save_directory)
        push_folder(folder, repository, files=written, **push)


def _adapts(model: PreTrainedModel) -> bool:
    """Whether adapters add to what the weights compute."""
    return any(layer.active for layer in adapted_layers(model.modules()))


def _write_model(model: PreTrainedModel, folder: Path, max_shard_size: int | str) -> list[Path]:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = name_of(model.dtype)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    configs = [folder / CONFIG_FILE, *([folder / GENERATION_CONFIG_FILE] if model.can_generate() else [])]
    return [*configs, *write_checkpoint(folder, tensors_to_write(model), max_shard_size=max_shard_size)]


def _write_adapter(model: PreTrainedModel, folder: Path) -> list[Path]:
    """The adapter alone, where it and its base model's name are all that is needed to load the model again."""
    if not all(config.base_model_name_or_path for config in model.peft_config.values()):
        problem = "its base model has no name by which it could be loaded again"
    elif (folder / CONFIG_FILE).exists():
        problem = f"{folder} holds a model, which would be loaded instead"
    else:
        return save_adapter(model, folder)
    raise ArgumentError(
        f"The model has an adapter that is not merged, and so only the adapter would be saved, but {problem}. "
        "Call merge_and_unload() first to save a model of its own, or save_adapter(folder) for the adapter."
    )


def push_model(model: PreTrainedModel, repo_id: str, *, max_shard_size: int | str = "5GB", **push: Any) -> str:
    """Upload a model; see `PreTrainedModel.push_to_hub`."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder, max_shard_size=max_shard_size)
        return push_folder(folder, repo_id, **push)


def tensors_to_write(model: PreTrainedModel) -> Iterator[TensorToWrite]:
    """The checkpoint's tensors by the names they have there; each is laid out when its turn to be written comes."""
    parameters = wanted_tensors(model)
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    for piece in model.family.names(model.config).pieces:
        if piece.ours not in parameters:
            continue
        ours = parameters[piece.ours].detach()
        rows = ours if piece.rows is None else ours[piece.rows[0] : piece.rows[1]]
        name = piece.theirs if piece.ours.startswith("head.") else f"{prefix}{piece.theirs}"
        shape = piece.shape_of_theirs(tuple(ours.shape))
        yield TensorToWrite(name, FILE_DTYPES[ours.dtype], shape, partial(tensor_bytes, piece.layout.to_theirs, rows))


def tensor_bytes(to_theirs: Callable[[Tensor], Tensor], rows: Tensor) -> memoryview:
    """The elements of canonical rows as the checkpoint lays them out."""
    flat = to_theirs(rows).contiguous().cpu().flatten()
    return flat.view(torch.uint8).numpy().data
