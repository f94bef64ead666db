"""From a folder with an adapter alone to the model that it was trained on; neither is loaded here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from loquent.config.lora import ADAPTER_CONFIG_FILE, LoraConfig
from loquent.config.reading import CONFIG_FILE
from loquent.errors import ConfigError
from loquent.hub.resolve import resolve_file

_OF_THE_FOLDER = ("revision", "subfolder")
_OF_THE_HUB = ("revision", "cache_dir", "token", "local_files_only")


def adapter_in(name_or_path: str | os.PathLike[str], hub: Mapping[str, Any]) -> LoraConfig | None:
    """The config of the adapter in a folder or repository that has no model of its own; None where there is none."""
    if resolve_file(name_or_path, CONFIG_FILE, required=False, **hub) is not None:
        return None
    if resolve_file(name_or_path, ADAPTER_CONFIG_FILE, required=False, **hub) is None:
        return None
    return LoraConfig.from_pretrained(name_or_path, **hub)


def base_of(
    name_or_path: str | os.PathLike[str], config: LoraConfig, arguments: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The name of the model that an adapter was trained on, and what to load it with.

    Args:
        name_or_path: where the adapter is.
        config: its config.
        arguments: what `from_pretrained` was given beside the adapter's name.

    Raises:
        ConfigError: the config names no model, or another adapter.
    """
    base = config.base_model_name_or_path
    if not base:
        raise ConfigError(
            f"{os.fspath(name_or_path)!r} holds an adapter whose config names no base model. Load the model, and then "
            "the adapter: model.load_adapter(folder)."
        )
    rest = {name: value for name, value in arguments.items() if name not in _OF_THE_FOLDER}
    rest |= {"revision": config.revision} if config.revision else {}
    hub: dict[str, Any] = {
        name: rest[name] for name in ("revision", "cache_dir", "token", "local_files_only") if name in rest
    }
    if adapter_in(base, hub) is not None:
        raise ConfigError(
            f"{os.fspath(name_or_path)!r} holds an adapter for {base!r}, which holds one itself. Load a model, and "
            "then each adapter: model.load_adapter(folder, name)."
        )
    return base, rest
