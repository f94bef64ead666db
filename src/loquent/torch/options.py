"""The keyword arguments of `from_pretrained` and `from_config`, checked and resolved; nothing is read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from loquent.config.base import PretrainedConfig
from loquent.errors import ArgumentError
from loquent.hub.resolve import HUB_KEYWORDS

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
QUANTIZED = ("int8", "int4")
_ATTENTION = ("eager", "sdpa")

# Arguments of transformers that ask for nothing with the first value, and cannot be had with another.
_UNAVAILABLE: dict[str, tuple[Any, str]] = {
    "ignore_mismatched_sizes": (False, "Every tensor must fit the config; resize_token_embeddings() changes sizes."),
    "output_loading_info": (False, "What does not fit is an error that lists it; leave it out."),
    "variant": (None, "Weights are read from the files' usual names; leave it out."),
    "state_dict": (None, "Use from_config(config), then load_state_dict(state_dict)."),
    "quantization_config": (None, "Use quantization='int8' or 'int4', or leave it out."),
    "max_memory": (None, "A model is never split over devices; give one as device_map='cuda:0'."),
    "offload_folder": (None, "A model is never split over devices and files; leave it out."),
    "offload_state_dict": (False, "A model is never split over devices and files; leave it out."),
    "gguf_file": (None, "Only safetensors and PyTorch files are read; leave it out."),
    "from_tf": (False, "Only safetensors and PyTorch files are read; leave it out."),
    "from_flax": (False, "Only safetensors and PyTorch files are read; leave it out."),
    "proxies": (None, "Set HTTPS_PROXY in the environment."),
    "resume_download": (True, "Downloads are always resumed; leave it out."),
}


@dataclass(frozen=True)
class LoadOptions:
    """What `from_pretrained` takes besides the name.

    `dtype` (or `torch_dtype`): a torch dtype, its name, or "auto" for what the config names, else what the file holds;
    None is torch's default dtype, as in transformers 4. `device_map`: "cpu", "cuda", a device, or "auto" for the GPU
    if there is one; a model is never split over devices. `config`: used instead of the folder's. `attn_implementation`:
    "eager" or "sdpa", which differ in nothing here. `low_cpu_mem_usage` is accepted: memory use is always low.
    `use_safetensors`: True is an error where the folder has only `.bin` files, which are otherwise read where there is
    nothing else. `trust_remote_code`: no code of a model's folder is ever run; True is an error where the folder has
    some. Arguments of transformers that ask for nothing (`quantization_config=None`) are accepted.

    `quantization`: "int8" or "int4" for a model that the native core holds and runs (`loquent.native.model`), which
    AutoModelForCausalLM alone gives; `dtype="int8"`, `load_in_8bit=True` and `load_in_4bit=True` mean the same. Of a
    quantized model, and of a packed folder, other dtypes change nothing.
    """

    dtype: torch.dtype | None  # None: "auto"
    device: torch.device
    config: PretrainedConfig | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    use_safetensors: bool | None = None
    quantization: str | None = None
    anywhere: bool = True  # whether the device was left to us
    hub: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


def read_options(kwargs: Mapping[str, Any]) -> LoadOptions:
    """The options in keyword arguments; those that are none of them are overrides of config fields.

    Raises:
        ArgumentError: a value that cannot work, or two spellings that disagree.
    """
    rest = dict(kwargs)
    hub = {name: rest.pop(name) for name in HUB_KEYWORDS & set(rest)}
    named, quantization = _read_quantization(rest, _one_of(rest, "dtype", "torch_dtype"))
    dtype = read_dtype(named)
    attention = rest.pop("attn_implementation", None)
    if attention not in (None, *_ATTENTION):
        raise ArgumentError(
            f"attn_implementation={attention!r} is not available. Use 'sdpa' or 'eager', or leave it out."
        )
    low_memory = rest.pop("low_cpu_mem_usage", None)
    if low_memory not in (None, True, False):
        raise ArgumentError(f"low_cpu_mem_usage={low_memory!r} must be True or False.")
    use_safetensors = rest.pop("use_safetensors", None)
    if use_safetensors not in (None, True, False):
        raise ArgumentError(f"use_safetensors={use_safetensors!r} must be True or False.")
    _drop_unavailable(rest)
    config = rest.pop("config", None)
    if config is not None and not isinstance(config, PretrainedConfig):
        raise ArgumentError(f"config={config!r} must be a config object: AutoConfig.from_pretrained(...) loads one.")
    device_map = rest.pop("device_map", None)
    return LoadOptions(
        dtype=dtype,
        device=read_device(device_map),
        anywhere=device_map is None or device_map == "auto",
        config=config,
        attn_implementation=attention,
        trust_remote_code=bool(rest.pop("trust_remote_code", False)),
        use_safetensors=use_safetensors,
        quantization=quantization,
        hub=hub,
        overrides=rest,
    )


def _read_quantization(kwargs: dict[str, Any], dtype: Any) -> tuple[Any, str | None]:
    """What the arguments leave for `dtype` to mean, and the precision that they ask to quantize to.

    Raises:
        ArgumentError: they ask for two, or for one that there is not.
    """
    asked = {}
    if (quantization := kwargs.pop("quantization", None)) is not None:
        if quantization not in QUANTIZED:
            raise ArgumentError(
                f"quantization={quantization!r} is not available. Use 'int8' or 'int4', or leave it out."
            )
        asked["quantization"] = quantization
    if isinstance(dtype, str) and dtype in QUANTIZED:
        asked["dtype"], dtype = dtype, "auto"
    for name, precision in (("load_in_8bit", "int8"), ("load_in_4bit", "int4")):
        if kwargs.pop(name, None):
            asked[name] = precision
    if len(set(asked.values())) > 1:
        raise ArgumentError(f"{' and '.join(asked)} ask for {' and '.join(asked.values())}. Pass one of them.")
    return dtype, next(iter(asked.values()), None)


def _drop_unavailable(kwargs: dict[str, Any]) -> None:
    """Take out arguments that ask for nothing, and refuse those that ask for what there is not."""
    for name, (off, remedy) in _UNAVAILABLE.items():
        value = kwargs.pop(name, None)
        if value is not None and value is not off:
            raise ArgumentError(f"{name}={value!r} is not available. {remedy}")


def _one_of(kwargs: dict[str, Any], name: str, older: str) -> Any:
    value, old_value = kwargs.pop(name, None), kwargs.pop(older, None)
    if value is not None and old_value is not None and value != old_value:
        raise ArgumentError(f"{name}={value!r} and {older}={old_value!r} are the same argument. Pass one of them.")
    return value if value is not None else old_value


def read_dtype(value: Any) -> torch.dtype | None:
    """The dtype that a `dtype` argument means: None for "auto", torch's default for None.

    Raises:
        ArgumentError: it is none that a model can have.
    """
    if value is None:
        return torch.get_default_dtype()
    if isinstance(value, str):
        if value == "auto":
            return None
        value = dtype_of(value)
    if value not in DTYPES:
        names = ", ".join(f"'{name_of(dtype)}'" for dtype in DTYPES)
        raise ArgumentError(f"dtype={value!r} is no type that a model can have. Use 'auto', {names} or a torch dtype.")
    assert isinstance(value, torch.dtype)
    return value


def dtype_of(name: str) -> Any:
    """The torch dtype of a name such as "bfloat16"; the name itself where there is none."""
    known = {name_of(dtype): dtype for dtype in DTYPES} | {"float": torch.float32, "half": torch.float16}
    return known.get(name.removeprefix("torch."), name)


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype in config files: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def read_device(device_map: Any) -> torch.device:
    """The one device that a `device_map` means.

    Raises:
        ArgumentError: it names several devices, none that exists, or is no device.
    """
    if isinstance(device_map, Mapping):
        devices = {str(device) for device in device_map.values()}
        if len(devices) != 1:
            raise ArgumentError(f"device_map={device_map!r} splits the model over devices. Give one device: 'cuda:0'.")
        device_map = next(iter(device_map.values()))
    if device_map is None:
        return torch.get_default_device()
    if device_map == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda", device_map) if isinstance(device_map, int) else torch.device(device_map)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"device_map={device_map!r} is no device. Use 'cpu', 'cuda', 'cuda:0' or 'auto'."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(f"device_map={device_map!r}: torch sees no CUDA device here. Use 'cpu' or 'auto'.")
    return device
