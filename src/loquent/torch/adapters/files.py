"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, checked before the model is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loquent.config.json_file import saving_folder
from loquent.config.lora import LoraConfig
from loquent.errors import ArgumentError
from loquent.hub.checkpoint import open_file
from loquent.hub.report import LoadReport
from loquent.hub.resolve import resolve_file
from loquent.hub.tensors import TensorView
from loquent.hub.writing import TensorToWrite, write_safetensors
from loquent.torch.adapters.attach import Adapters, attach, checked_names, known
from loquent.torch.adapters.layer import AdaptedLinear, LowRank
from loquent.torch.adapters.targets import Target, linear_layers, selected
from loquent.torch.adapters.whole import Whole, whole_tensors

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.hub.resolve import HubKeywords
    from loquent.torch.model import PreTrainedModel

SAFETENSORS = "adapter_model.safetensors"
TORCH = "adapter_model.bin"

_PREFIX = "base_model.model."  # PEFT's wrapper of a wrapper
_A, _B = ".lora_A.weight", ".lora_B.weight"
_BASE = ".base_layer.weight"


def load_adapter(
    model: PreTrainedModel,
    name_or_path: str | os.PathLike[str],
    name: str = "default",
    *,
    is_trainable: bool = False,
    **hub: Unpack[HubKeywords],
) -> None:
    """Add an adapter from a folder or a repository on the hub; it becomes the active one.

    Nothing in the folder is run: a `.bin` file, which is read only where there is no safetensors file, goes through
    the reader that knows tensors alone. The model is as it was if anything is wrong.

    Args:
        model: the model that the adapter was trained on.
        name_or_path: a folder, or a name such as "org/name".
        name: what to call the adapter.
        is_trainable: whether to go on training it.
        **hub: `revision`, `token`, `subfolder` and their like, as of `from_pretrained`.

    Raises:
        ConfigError: it is no LoRA adapter, or one of a kind that Loquent does not have.
        CheckpointError: files are missing or damaged; one error lists every tensor that is missing, unexpected or of
            another shape.
        ArgumentError: the name is taken, or adapters are merged.
        HubError: the name could not be resolved.
    """
    from loquent.torch.loading import as_tensor

    config = replace(LoraConfig.from_pretrained(name_or_path, **hub), inference_mode=not is_trainable)
    tensors = {view_name.removeprefix(_PREFIX): view for view_name, view in _opened(name_or_path, hub).items()}
    targets, wholes = meant = _meant(model, config, tensors)
    _check(model, config, tensors, meant, name_or_path)
    values = {key: as_tensor(view) for key, view in tensors.items()}
    attach(model, config, targets, name, wholes)
    _fill(model, name, targets, values)


def load_adapter_values(model: PreTrainedModel, folder: str | os.PathLike[str], name: str = "default") -> None:
    """Bring an adapter that the model has back to the values that `save_adapter` wrote, bit for bit.

    Raises:
        CheckpointError: the file is missing or damaged, or of an adapter of other layers or another rank; the model is
            as it was then.
        ArgumentError: the model has no such adapter.
    """
    from loquent.torch.loading import as_tensor

    state = known(model)
    checked_names(state, name)
    views = dict(open_file(Path(folder) / SAFETENSORS).items())
    tensors = {view_name.removeprefix(_PREFIX): view for view_name, view in views.items()}
    targets, wholes = _meant(model, state.configs[name], tensors)
    _check(model, state.configs[name], tensors, (targets, wholes), folder)
    _fill(model, name, targets, {key: as_tensor(view) for key, view in tensors.items()})


@torch.no_grad()
def _fill(model: PreTrainedModel, name: str, targets: list[Target], values: Mapping[str, torch.Tensor]) -> None:
    """Give an adapter of the model the values of a file's tensors."""
    for target in targets:
        part = part_of(model, target, name)
        part.lora_A.copy_(values[target.name + _A])
        part.lora_B.copy_(target.to_ours(values[target.name + _B]))
    for whole, parameter in known(model).wholes[name].items():
        parameter.copy_(whole.layout.to_ours(values[whole.name]))


def save_adapter(model: PreTrainedModel, folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """Write an adapter into a folder, made if need be, in PEFT's format; returns the files.

    Args:
        model: the model that has it; it may be merged or switched off.
        folder: where to; the base model is not written.
        name: which adapter; None: the active one.

    Raises:
        ArgumentError: there is no such adapter, several are active, or the folder cannot be made.
    """
    state = known(model)
    name = _only(state) if name is None else checked_names(state, name)[0]
    path = saving_folder(folder)
    tensors = [*_tensors(model, state.targets[name], name), *_whole_tensors(state.wholes[name])]
    write_safetensors(path / SAFETENSORS, tensors)
    config = replace(state.configs[name], inference_mode=True)
    return [path / SAFETENSORS, config.save_pretrained(path)]


def _opened(name_or_path: str | os.PathLike[str], hub: HubKeywords) -> Mapping[str, TensorView]:
    """The tensors of an adapter's folder or repository, by their names in the file."""
    for file_name in (SAFETENSORS, TORCH):
        path = resolve_file(name_or_path, file_name, required=False, **hub)
        if path is not None:
            return open_file(path)
    path = resolve_file(name_or_path, SAFETENSORS, **hub)  # which raises
    assert path is not None
    return open_file(path)


def _meant(
    model: PreTrainedModel, config: LoraConfig, tensors: Mapping[str, TensorView]
) -> tuple[list[Target], list[Whole]]:
    """What of a model a file is about, by its config: linear layers, and tensors that it has whole. They are called as
    the file calls them: with what precedes the names of a model with a head, or without."""
    prefix = f"{model.base_model_prefix}."
    prefix *= any(name.startswith(prefix) for name in tensors)
    layers = [
        layer if layer.is_head else replace(layer, name=prefix + layer.short_name) for layer in linear_layers(model)
    ]
    wholes = [
        whole if whole.is_of_head else replace(whole, name=prefix + whole.short_name)
        for whole in whole_tensors(model, config.modules_to_save or ())
    ]
    if not config.by_regular_expression:
        return selected(layers, config), wholes
    # A regular expression of a file is not run, since it could take forever: what it means, the tensors say.
    present = {name.removesuffix(end) for name in tensors for end in (_A, _B) if name.endswith(end)}
    return [layer for layer in layers if layer.name in present], wholes


def _check(
    model: PreTrainedModel,
    config: LoraConfig,
    tensors: Mapping[str, TensorView],
    meant: tuple[list[Target], list[Whole]],
    folder: str | os.PathLike[str],
) -> None:
    """Raises a CheckpointError that lists every tensor that is missing, unexpected or of another shape than meant."""
    targets, wholes = meant
    shapes: dict[str, tuple[int, ...]] = {}
    for target in targets:
        rank = config.rank(target.name)
        shapes[target.name + _A], shapes[target.name + _B] = (rank, target.inputs), (target.outputs, rank)
    for whole in wholes:
        shapes[whole.name] = whole.layout.shape_of_theirs(tuple(model.get_parameter(whole.path).shape))
    repeated = {layer.name + _BASE for layer in targets if _repeats_base(model, layer, tensors.get(layer.name + _BASE))}
    report = LoadReport(
        missing=[_PREFIX + name for name in shapes if name not in tensors],
        unexpected=[_PREFIX + name for name in tensors if name not in shapes and name not in repeated],
        mismatched=[
            (_PREFIX + name, tensors[name].shape, shape)
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape
        ],
    )
    if not targets and not report.unexpected:
        report.missing.append(f"{_PREFIX}...{_A}")
    report.raise_if_any(
        folder,
        "the model with its adapter_config.json",
        "Check that the adapter was trained on this model, and that its two files belong together.",
    )


def _repeats_base(model: PreTrainedModel, target: Target, view: TensorView | None) -> bool:
    """Whether a tensor is the weight that the model has already, which PEFT saves beside the adapter of a head."""
    from loquent.torch.loading import as_tensor

    if view is None or view.shape != target.layout.shape_of_theirs((target.outputs, target.inputs)):
        return False
    weight = model.get_submodule(target.module).weight
    assert isinstance(weight, Tensor)
    ours = weight.detach()[target.start : target.stop]
    return torch.equal(target.layout.to_ours(as_tensor(view)).to(ours), ours)


def _only(state: Adapters) -> str:
    if len(state.active) != 1:
        raise ArgumentError(
            f"{len(state.active)} adapters are active ({', '.join(state.active)}). Say which one to save: "
            "save_adapter(model, folder, name)."
        )
    return state.active[0]


def _tensors(model: PreTrainedModel, targets: tuple[Target, ...], name: str) -> Iterator[TensorToWrite]:
    from loquent.torch.loading import FILE_DTYPES
    from loquent.torch.saving import tensor_bytes

    for target in targets:
        part = part_of(model, target, name)
        a, b = part.lora_A.detach(), part.lora_B.detach()
        for end, tensor, to_theirs in ((_A, a, _same), (_B, b, target.to_theirs)):
            kind, shape = FILE_DTYPES[tensor.dtype], tuple(tensor.shape)
            yield TensorToWrite(_PREFIX + target.name + end, kind, shape, partial(tensor_bytes, to_theirs, tensor))


def _whole_tensors(wholes: Mapping[Whole, Tensor]) -> Iterator[TensorToWrite]:
    from loquent.torch.loading import FILE_DTYPES
    from loquent.torch.saving import tensor_bytes

    for whole, parameter in wholes.items():
        ours, shape = parameter.detach(), whole.layout.shape_of_theirs(tuple(parameter.shape))
        elements = partial(tensor_bytes, whole.layout.to_theirs, ours)
        yield TensorToWrite(_PREFIX + whole.name, FILE_DTYPES[ours.dtype], shape, elements)


def part_of(model: PreTrainedModel, target: Target, name: str) -> LowRank:
    """An adapter's update of a linear layer."""
    layer = model.get_submodule(target.module)
    assert isinstance(layer, AdaptedLinear)
    part = layer.adapters[name].get_submodule(target.leaf)
    assert isinstance(part, LowRank)
    return part


def _same(tensor: Tensor) -> Tensor:
    return tensor
