"""From a name to a `TextModel`: the model in the package, a folder, or a repository on the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from loquent.errors import ArgumentError, CheckpointError
from loquent.text.model import TextModel

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16", "float16")


def default_model() -> Path:
    """The folder of the model that comes with the package.

    Raises:
        CheckpointError: this installation has none.
    """
    folder = Path(__file__).parents[1] / "models" / "default"
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
    device: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> TextModel:
    """A model that writes text, with its tokenizer.

    Args:
        name_or_path: a folder, a repository on the hub ("org/name"), or None for the model in the package.
        precision: the type of the weights; "auto" for the one that the checkpoint is stored in.
        device: "cpu", "cuda", "cuda:1"; None for a GPU where there is one.
        revision: a branch, a tag or a commit of the repository.
        token: an access token, True for the stored one, False for none.
        cache_dir: a cache other than the usual one.
        local_files_only: never ask the hub.

    Raises:
        ArgumentError: a precision or device that cannot be had.
        HubError: the name could not be resolved.
        CheckpointError, ConfigError, TokenizerError: the files are missing or damaged.
        MissingExtraError: torch is not installed.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision={precision!r} is unknown. Use one of {', '.join(map(repr, PRECISIONS))}.")
    from loquent import AutoModelForCausalLM, AutoTokenizer

    name = default_model() if name_or_path is None else name_or_path
    hub: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    hub["local_files_only"] = local_files_only
    tokenizer = AutoTokenizer.from_pretrained(name, **hub)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=precision, device_map=device or "auto", **hub)
    return TextModel(model, tokenizer)
