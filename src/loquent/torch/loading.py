"""From a folder or a hub to a torch model: tensors are streamed from mapped files into parameters allocated once.

The memory that loading takes beside the model is one page of a file at a time: tensors are views of mapped files, each
is converted while it is copied to its place, and no state dict is ever held.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from loquent.config.packing import packed_precision
from loquent.errors import ArgumentError, CheckpointError
from loquent.hub.checkpoint import Checkpoint, open_checkpoint, resolve_checkpoint
from loquent.hub.matching import Match, match_tensors
from loquent.hub.tensors import TensorView
from loquent.torch.adapters.origin import adapter_in, base_of
from loquent.torch.model import PreTrainedModel, default_dtype
from loquent.torch.options import LoadOptions, dtype_of, read_dtype, read_options

if TYPE_CHECKING:
    from loquent.config import PretrainedConfig

M = TypeVar("M", bound=PreTrainedModel)

_TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
}
"""The types of tensors that hold weights; others (index buffers of old checkpoints) are never loaded."""


FILE_DTYPES = {dtype: name for name, dtype in _TORCH_DTYPES.items()}
"""What files call the types of weights."""


def load_model(cls: type[M], name_or_path: str | os.PathLike[str], **kwargs: Any) -> M:
    """A trained model of class `cls`; see `PreTrainedModel.from_pretrained`."""
    options = read_options(kwargs)
    if options.config is None and (adapter := adapter_in(name_or_path, options.hub)) is not None:
        base, arguments = base_of(name_or_path, adapter, kwargs)
        model = cls.from_pretrained(base, **arguments)
        model.load_adapter(name_or_path, **options.hub)
        return model
    config = read_config(name_or_path, options)
    _check_plain(name_or_path, config, options)
    if not isinstance(config, cls.family_config()):
        raise ArgumentError(
            f"{cls.__name__} is for model_type={cls.model_type!r}, but {os.fspath(name_or_path)!r} has "
            f"model_type={config.model_type!r}. AutoModel and AutoModelForCausalLM choose the class by the config."
        )
    from loquent.config import GenerationConfig

    checkpoint = open_checkpoint(resolve_checkpoint(name_or_path, **options.hub))
    if options.use_safetensors and checkpoint.files[0].suffix != ".safetensors":
        raise CheckpointError(
            f"use_safetensors=True, but {os.fspath(name_or_path)!r} has only {checkpoint.files[0].name}. "
            "Leave the argument out: that file is read without running any code."
        )
    dtype = options.dtype or _automatic_dtype(config, checkpoint)
    with torch.device("meta"), default_dtype(dtype):
        model = cls(config)
    matches = _matches(model, checkpoint, name_or_path)
    model.allocate(options.device)
    _fill(wanted_tensors(model), matches, checkpoint)
    model.generation_config = GenerationConfig.of_model(name_or_path, config, **options.hub)
    return model.eval()


def load_weights(model: PreTrainedModel, folder: str | os.PathLike[str]) -> None:
    """Copy the weights in a folder that `save_pretrained` wrote into a model of the same shape.

    Raises:
        CheckpointError: as in `load_model`; the model is as it was then.
    """
    checkpoint = open_checkpoint(resolve_checkpoint(folder))
    _fill(wanted_tensors(model), _matches(model, checkpoint, folder), checkpoint)


def _matches(model: PreTrainedModel, checkpoint: Checkpoint, name_or_path: str | os.PathLike[str]) -> list[Match]:
    """Where each tensor of a checkpoint goes; the model may be on the meta device."""
    matches, report = match_tensors(
        model.family.names(model.config),
        model.base_model_prefix,
        {name: tuple(tensor.shape) for name, tensor in wanted_tensors(model).items()},
        {name: view.shape for name, view in checkpoint.items()},
        headless=model.base_model is model,
    )
    report.raise_if_any(name_or_path)
    return matches


def read_config(name_or_path: str | os.PathLike[str], options: LoadOptions) -> PretrainedConfig:
    """The config to load with: the one given, or the folder's with fields overridden.

    Raises:
        ArgumentError: an override names no field, or the folder's model would need its own code.
    """
    config = options.config
    if config is None:
        from loquent.families.auto import AutoConfig

        config = AutoConfig.from_pretrained(name_or_path, **options.hub, **options.overrides)
        config.attn_implementation = options.attn_implementation
    elif options.overrides:
        raise ArgumentError(
            f"config was given, and with it {sorted(options.overrides)}. Set such fields in the config, or check the "
            "spelling."
        )
    if options.trust_remote_code and "auto_map" in config.to_dict():
        raise ArgumentError(
            f"trust_remote_code=True, but Loquent never runs the code of a model's folder, and {name_or_path!s} brings "
            "its own. Leave the argument out to load it as the family that its config names."
        )
    return config


def _check_plain(name_or_path: str | os.PathLike[str], config: PretrainedConfig, options: LoadOptions) -> None:
    """Refuse what has no parameters to train: the classes of PyTorch hold floats.

    Raises:
        ArgumentError: quantization was asked for.
        CheckpointError: the folder is packed, or quantized in another library's way.
    """
    remedy = "AutoModelForCausalLM and loquent.load give models that generate from it"
    if options.quantization:
        raise ArgumentError(f"quantization={options.quantization!r} is not for classes of PyTorch. {remedy}.")
    if packed := packed_precision(config.to_dict(), name_or_path):
        raise CheckpointError(f"{os.fspath(name_or_path)!r} is packed in {packed} for the native core. {remedy}.")


def model_from_config(cls: type[M], config: PretrainedConfig, **kwargs: Any) -> M:
    """A model of class `cls` with random weights; see `PreTrainedModel.from_config`."""
    options = read_options(kwargs)
    rest = {"config": options.config, "quantization": options.quantization}
    given = [name for name, value in rest.items() if value is not None]
    if options.overrides or options.hub or given:
        unknown = sorted({*options.overrides, *options.hub, *given})
        raise TypeError(f"from_config() got unexpected keyword arguments {unknown}")
    asked = "dtype" in kwargs or "torch_dtype" in kwargs
    dtype = options.dtype or read_dtype(config.dtype) if asked else read_dtype(None)
    with default_dtype(dtype or torch.get_default_dtype()), options.device:
        return cls(config)


def wanted_tensors(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The model's parameters by canonical name: the base model's without its attribute, a tied head's left out."""
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix): parameter for name, parameter in model.named_parameters()}


def as_tensor(view: TensorView) -> Tensor:
    """A checkpoint's tensor over the bytes of its file.

    Raises:
        CheckpointError: it is of a type that weights do not have.
    """
    dtype = _TORCH_DTYPES.get(view.dtype)
    if dtype is None:
        raise CheckpointError(f"{view.name} is of type {view.dtype}, which weights cannot have. Convert it to floats.")
    if not view.nbytes:
        return torch.empty(view.shape, dtype=dtype)
    return torch.frombuffer(view.bytes(), dtype=dtype).view(view.shape)


@torch.no_grad()
def _fill(parameters: Mapping[str, nn.Parameter], matches: list[Match], checkpoint: Checkpoint) -> None:
    for match in matches:
        piece = match.piece
        target = parameters[piece.ours]
        rows = target if piece.rows is None else target[piece.rows[0] : piece.rows[1]]
        rows.copy_(piece.layout.to_ours(as_tensor(checkpoint[match.theirs])))


def _automatic_dtype(config: PretrainedConfig, checkpoint: Checkpoint) -> torch.dtype:
    """What dtype="auto" means: the config's type, else that of the first tensor of floats in the files."""
    named = None if config.dtype in (None, "auto") else dtype_of(str(config.dtype))
    if isinstance(named, torch.dtype):
        return named
    stored = (_TORCH_DTYPES.get(view.dtype) for view in checkpoint.values())
    found = next((dtype for dtype in stored if dtype is not None and dtype.itemsize > 1), None)
    return found or torch.get_default_dtype()
