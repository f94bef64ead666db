"""`AutoConfig`: the config of a model whose family is not known beforehand."""

from __future__ import annotations

import os
from typing import Any

from loquent.config.base import PretrainedConfig
from loquent.config.reading import read_config_dict
from loquent.errors import ArgumentError, ConfigError
from loquent.families import family, model_types
from loquent.hub.resolve import HUB_KEYWORDS


class AutoConfig:
    """Makes the config that a model's `model_type` asks for; it has no instances of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ArgumentError("AutoConfig has no instances. Use AutoConfig.from_pretrained(name) or .for_model(type).")

    @classmethod
    def for_model(cls, model_type: str, *args: Any, **kwargs: Any) -> PretrainedConfig:
        """A config of the model type from the arguments of its class: `AutoConfig.for_model("gpt2", n_layer=2)`.

        Raises:
            ConfigError: the model type is unknown, or the fields make no config.
        """
        return family(model_type).config(*args, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The config of a model, of its family's class.

        Args:
            pretrained_model_name_or_path: a folder, a repository on the hub, or the path of a JSON file.
            return_unused_kwargs: return a pair of the config and the arguments that name no field.
            trust_remote_code: accepted for programs that pass it; no code of a model's folder is ever run.
            **kwargs: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download` for the hub;
                all others override fields.

        Raises:
            HubError, CheckpointError: the name could not be resolved, or the folder has no config.
            ConfigError: the file is not a JSON object, names no known model type, or its fields make no config.
            ArgumentError: an override names no field.
        """
        name = str(pretrained_model_name_or_path)
        hub = {key: kwargs.pop(key) for key in HUB_KEYWORDS & set(kwargs)}
        fields = read_config_dict(pretrained_model_name_or_path, **hub)
        model_type = fields.get("model_type")
        if not isinstance(model_type, str):
            raise ConfigError(
                f"The config of {name!r} has model_type={model_type!r}, so its family is unknown. Write one of "
                f"{', '.join(model_types())} into it, or load it with a family's config class."
            )
        made = family(model_type).config.from_dict(fields, return_unused_kwargs=return_unused_kwargs, **kwargs)
        config = made[0] if return_unused_kwargs else made
        config.name_or_path = name
        return made
