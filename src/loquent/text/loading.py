"""From a name to a `TextModel`: the model in the package, a folder, or a repository on the hub."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from loquent.config.lora import ADAPTER_CONFIG_FILE
from loquent.config.reading import CONFIG_FILE
from loquent.errors import ArgumentError, CheckpointError
from loquent.generation.binding import Bound, limit_kv_memory
from loquent.hub.resolve import resolve_file
from loquent.sizes import parse_size
from loquent.text.model import TextModel

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
_QUANTIZED = ("int8", "int4")
_PACKAGED = ("default", "default-draft")


def default_model(name: str = "default") -> Path:
    """The folder of a model that comes with the package: "default", or "default-draft", which drafts for it.

    Raises:
        CheckpointError: this installation has none.
    """
    folder = Path(__file__).parents[1] / "models" / name
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"This installation has no default model (there is no {folder / 'config.json'}). "
            "Name a model: a folder, or a repository on the hub such as openai-community/gpt2."
        )
    return folder


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    precision: Precision = "auto",
    key_values: str | None = None,
    kv_memory: int | str | None = None,
    device: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> TextModel:
    """A model that writes text, with its tokenizer.

    Args:
        name_or_path: a folder, a repository on the hub ("org/name"), "default" or None for the model in the package, or
            "default-draft" for the smaller one that drafts for it.
        precision: how the weights are held; "auto" as the checkpoint or the packed folder is stored.
        key_values: how keys and values are stored, "float32", "bfloat16" or "int8"; None: float32 where the weights
            are, else bfloat16. For the native core alone.
        kv_memory: how much of keys and values all requests together may hold in memory, in bytes or as "512MB", "2GiB";
            None: 90 % of what is free when the first one begins. See docs/memory.md.
        device: "cpu" or None for the CPU, which takes no torch; "cuda", "cuda:1" for a GPU, by torch.
        revision: a branch, a tag or a commit of the repository.
        token: an access token, True for the stored one, False for none.
        cache_dir: a cache other than the usual one.
        local_files_only: never ask the hub.

    On the CPU the native core runs the model. Where it cannot, torch does if it is installed and has the precision;
    `TextModel.describe()` and `TextModel.obstacle` say so.

    Raises:
        ArgumentError: a precision or device that cannot be had, or a size that is none.
        HubError: the name could not be resolved.
        CheckpointError, ConfigError, TokenizerError: the files are missing or damaged.
        NativeError: the native core cannot run the model, and torch cannot either.
        MissingExtraError: the device takes torch, which is not installed.
    """
    from loquent import AutoTokenizer
    from loquent.native.loading import check_precision

    check_precision(precision)
    limit = None if kv_memory is None else parse_size(kv_memory, "kv_memory")
    name = place_of(name_or_path)
    hub: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    hub["local_files_only"] = local_files_only
    tokenizer = AutoTokenizer.from_pretrained(name, **hub)
    if key_values is not None and device not in (None, "cpu"):
        raise ArgumentError(f"key_values={key_values!r} is for the CPU, not device={device!r}. Leave one of them out.")
    model, obstacle = _load_model(name, precision, key_values, device, hub)
    if limit is not None:
        limit_kv_memory(model, limit)
    return TextModel(model, tokenizer, obstacle)


def place_of(name_or_path: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """What is named, where it is in the package; a folder of the same name here comes first."""
    if name_or_path is None:
        return default_model()
    if name_or_path in _PACKAGED and not Path(name_or_path).is_dir():
        return default_model(str(name_or_path))
    return name_or_path


def _load_model(
    name: Any, precision: str, key_values: str | None, device: str | None, hub: dict[str, Any]
) -> tuple[Bound, str | None]:
    """The model, and why the native core does not run it, where it was meant to."""
    from loquent.native.loading import load_native, obstacle_to, read_config

    if device not in (None, "cpu"):
        return _load_torch(name, precision, device, hub), None
    if _is_adapter(name, hub):
        if precision in _QUANTIZED or key_values is not None:
            raise ArgumentError(
                f"{os.fspath(name)!r} holds an adapter, which runs in PyTorch, without precision={precision!r} and "
                f"key_values={key_values!r}. Merge it first: loquent adapter merge."
            )
        return _load_torch(name, precision, "cpu", hub), "an adapter is added to it (loquent adapter merge merges it)"
    config = read_config(name, **hub)
    obstacle = obstacle_to(config)
    if obstacle and precision not in _QUANTIZED and key_values is None and has_torch():
        return _load_torch(name, precision, "cpu", hub), obstacle
    return load_native(name, precision, config, key_values, **hub), None


def _is_adapter(name: Any, hub: dict[str, Any]) -> bool:
    """Whether a folder or repository holds an adapter, and no model of its own."""
    return (
        resolve_file(name, CONFIG_FILE, required=False, **hub) is None
        and resolve_file(name, ADAPTER_CONFIG_FILE, required=False, **hub) is not None
    )


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    try:
        return find_spec("torch") is not None
    except ImportError:
        return False


def _load_torch(name: Any, precision: str, device: str | None, hub: dict[str, Any]) -> Any:
    from loquent import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name, dtype=precision, device_map=device, **hub)
