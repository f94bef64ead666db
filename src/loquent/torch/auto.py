"""What `AutoModel` and its like share: the class is chosen by the config, and they are never instantiated."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from loquent.config.base import PretrainedConfig
from loquent.config.lora import LoraConfig
from loquent.config.packing import packed_precision
from loquent.errors import ArgumentError
from loquent.torch.adapters.origin import adapter_in, base_of
from loquent.torch.model import PreTrainedModel
from loquent.torch.options import LoadOptions, read_options


class AutoClass:
    """A choice among model classes by a config's `model_type`."""

    _classes: ClassVar[dict[str, type[PreTrainedModel]]]

    def __init__(self) -> None:
        name = type(self).__name__
        raise TypeError(f"{name} is not instantiated. Use {name}.from_pretrained(name) or {name}.from_config(config).")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """A trained model of the class that its config asks for; see `PreTrainedModel.from_pretrained`.

        With `quantization="int8"` or "int4", and for a packed folder, it is a `loquent.native.model.NativeModel`: it
        generates on the CPU, and can neither be trained nor give logits.
        """
        from loquent.torch.loading import read_config

        options = read_options(kwargs)
        if options.config is None and (adapter := adapter_in(pretrained_model_name_or_path, options.hub)) is not None:
            return cls._load_adapted(pretrained_model_name_or_path, adapter, kwargs)
        config = read_config(pretrained_model_name_or_path, options)
        packed = packed_precision(config.to_dict(), pretrained_model_name_or_path)
        if options.quantization or packed:
            return cls._load_native(pretrained_model_name_or_path, config, options)
        rest = {name: value for name, value in kwargs.items() if name not in options.overrides}
        return cls.class_for(config).from_pretrained(pretrained_model_name_or_path, **{**rest, "config": config})

    @classmethod
    def _load_adapted(cls, name: str | os.PathLike[str], adapter: LoraConfig, kwargs: dict[str, Any]) -> Any:
        base, arguments = base_of(name, adapter, kwargs)
        model, hub = cls.from_pretrained(base, **arguments), read_options(kwargs).hub
        if not isinstance(model, PreTrainedModel):
            raise ArgumentError(
                f"{os.fspath(name)!r} holds an adapter, which a quantized model cannot have. Load it without "
                "quantization, merge_and_unload(), save_pretrained(folder), and quantize that folder."
            )
        model.load_adapter(name, **hub)
        return model

    @classmethod
    def _load_native(cls, name: str | os.PathLike[str], config: PretrainedConfig, options: LoadOptions) -> Any:
        raise ArgumentError(
            f"{cls.__name__} gives models of PyTorch, which are not quantized. AutoModelForCausalLM loads packed "
            "folders, and takes quantization='int8'."
        )

    @classmethod
    def from_config(cls, config: PretrainedConfig, **kwargs: Any) -> Any:
        """A model with random weights of the class that the config asks for; see `PreTrainedModel.from_config`."""
        return cls.class_for(config).from_config(config, **kwargs)

    @classmethod
    def class_for(cls, config: PretrainedConfig) -> type[PreTrainedModel]:
        """The class for a config.

        Raises:
            ArgumentError: there is none for its model type.
        """
        if not isinstance(config, PretrainedConfig):
            raise ArgumentError(
                f"config={config!r} is a {type(config).__name__}. AutoConfig.from_pretrained(...) loads a config; "
                f"{cls.__name__}.from_pretrained(...) loads a model with its weights."
            )
        if config.model_type not in cls._classes:
            raise ArgumentError(
                f"{cls.__name__} has no class for model_type={config.model_type!r}, only for "
                f"{', '.join(sorted(cls._classes))}."
            )
        return cls._classes[config.model_type]
