"""Pipelines: a task's model and tokenizer behind one call; `pipeline()` chooses and loads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from loquent.errors import ArgumentError, MissingExtraError
from loquent.pipelines.text_generation import TextGenerationPipeline

__all__ = ["TextGenerationPipeline", "pipeline"]

_TASKS = {"text-generation": TextGenerationPipeline}


def pipeline(
    task: str | None = None,
    model: Any = None,
    *,
    tokenizer: Any = None,
    config: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    device: Any = None,
    device_map: Any = None,
    framework: str | None = None,
    use_fast: bool = True,
    revision: str | None = None,
    token: str | bool | None = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> TextGenerationPipeline:
    """A pipeline with a loaded model (https://huggingface.co/docs/transformers/main_classes/pipelines).

    Args:
        task: "text-generation", also where it is left out.
        model: a name or folder, a model, a `TextModel`; None for the model in the package.
        tokenizer: a name or folder, or a tokenizer; needed beside a model object, else the model's own.
        config: a config instead of the folder's.
        dtype, torch_dtype: the type of the weights, "auto" for the checkpoint's own; two names of one argument.
        device, device_map: where the model runs: "cpu", "cuda:0", a number of a GPU (-1: the CPU), "auto". A loaded
            model is moved to `device`; other arguments of loading must fit what it is.
        framework: "pt", the only one.
        use_fast: accepted for programs that pass it; there is one kind of tokenizers.
        revision, token, trust_remote_code, model_kwargs: passed to `from_pretrained`.
        options: defaults for the calls: `batch_size`, `return_full_text`, `max_new_tokens`, ...

    Raises:
        ArgumentError: there is no such task, or arguments that cannot work together.
        HubError, CheckpointError, ConfigError, TokenizerError: the model could not be found or read.
    """
    if task is not None and task not in _TASKS:
        raise ArgumentError(f"task={task!r} is not available. There are: {', '.join(map(repr, sorted(_TASKS)))}.")
    if device is not None and device_map is not None:
        raise ArgumentError(f"device={device!r} and device_map={device_map!r} say the same twice. Pass one of them.")
    if framework not in (None, "pt"):
        raise ArgumentError(f"framework={framework!r} is not available. Use 'pt', or leave it out.")
    hub = {"revision": revision, "token": token}
    loading = {**hub, "config": config, "dtype": dtype, "torch_dtype": torch_dtype, **(model_kwargs or {})}
    loading |= {"device_map": _device(device) if device is not None else device_map}
    loading |= {} if trust_remote_code is None else {"trust_remote_code": trust_remote_code}
    loading = {name: value for name, value in loading.items() if value is not None}
    if model is None or isinstance(model, str | os.PathLike):
        model, tokenizer = _loaded(model, tokenizer, loading, hub)
    else:
        model, tokenizer = _given(model, tokenizer, hub)
        if device is not None:
            model.to(loading.pop("device_map"))
        _refuse(model, {name: value for name, value in loading.items() if name not in hub})
    return _TASKS[task or "text-generation"](model, tokenizer, **options)


def _refuse(model: Any, loading: dict[str, Any]) -> None:
    """Refuse arguments of loading beside a loaded model where they say something else than it is."""
    is_so: dict[str, Callable[[Any], bool]] = {
        "config": lambda value: value is model.config,
        "device_map": lambda value: str(value) in ("auto", str(model.device), str(model.device).partition(":")[0]),
        **dict.fromkeys(("dtype", "torch_dtype"), lambda value: _named(value) in ("auto", _named(model.dtype))),
        "trust_remote_code": lambda value: not value,
    }
    for name, value in loading.items():
        if name not in is_so or not is_so[name](value):
            raise ArgumentError(
                f"{name}={value!r} cannot change a model that is loaded. Pass it where the model is loaded, or leave "
                "it out; model.to(...) changes device and type."
            )


def _named(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _device(device: Any) -> Any:
    if isinstance(device, int):
        return "cpu" if device < 0 else f"cuda:{device}"
    return device


def _loaded(name: Any, tokenizer: Any, loading: dict[str, Any], hub: dict[str, Any]) -> tuple[Any, Any]:
    from loquent.text.loading import default_model, has_torch

    if name is None:
        name = default_model()
    tokenizer = _tokenizer(name if tokenizer is None else tokenizer, hub)
    if not has_torch():
        return _natively(name, loading), tokenizer
    from loquent import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(name, **loading), tokenizer


def _natively(name: Any, loading: dict[str, Any]) -> Any:
    """The model where torch is not installed."""
    from loquent.native.loading import load_native

    rest = dict(loading)
    dtype, device = rest.pop("dtype", rest.pop("torch_dtype", "auto")), rest.pop("device_map", "cpu")
    quantization = rest.pop("quantization", None)
    if device not in ("auto", "cpu"):
        raise MissingExtraError("torch", "torch", f"device={device!r}")
    rest.pop("trust_remote_code", None)
    return load_native(name, quantization or dtype, **rest)


def _given(model: Any, tokenizer: Any, hub: dict[str, Any]) -> tuple[Any, Any]:
    from loquent.text import TextModel

    if isinstance(model, TextModel):
        return model.model, model.tokenizer if tokenizer is None else _tokenizer(tokenizer, hub)
    if not hasattr(model, "open_backend"):
        raise ArgumentError(
            f"model is a {type(model).__module__}.{type(model).__name__}, which Loquent cannot run. Pass a name, a "
            "folder, or a model that loquent.AutoModelForCausalLM loaded."
        )
    if tokenizer is None:
        raise ArgumentError("tokenizer is missing: a model object does not bring one. Pass tokenizer=...")
    return model, _tokenizer(tokenizer, hub)


def _tokenizer(given: Any, hub: dict[str, Any]) -> Any:
    from loquent.tokenization import AutoTokenizer

    return AutoTokenizer.from_pretrained(given, **hub) if isinstance(given, str | os.PathLike) else given
