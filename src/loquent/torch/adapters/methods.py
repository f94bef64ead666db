"""The methods of models for adapters, under the names of transformers and PEFT; what they do is in the files beside.

https://huggingface.co/docs/transformers/main_classes/peft and https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from loquent.config.lora import LoraConfig
    from loquent.torch.adapters.attach import Adapters
    from loquent.torch.adapters.merging import Merged
    from loquent.torch.model import PreTrainedModel

A = TypeVar("A", bound="AdapterMethods")


class AdapterMethods:
    """What a `PreTrainedModel` can do with LoRA adapters (docs/adapters.md)."""

    _adapters: Adapters | None = None

    def add_adapter(self, adapter_config: LoraConfig, adapter_name: str = "default") -> None:
        """Add an adapter to train; see `loquent.torch.adapters.add_lora`."""
        from loquent.torch.adapters.attach import add_lora

        add_lora(_model(self), adapter_config, adapter_name)

    def load_adapter(
        self,
        peft_model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        *,
        is_trainable: bool = False,
        **hub: Any,
    ) -> None:
        """Add an adapter from a folder or the hub; see `loquent.torch.adapters.load_adapter`."""
        from loquent.torch.adapters.files import load_adapter

        load_adapter(_model(self), peft_model_id, adapter_name, is_trainable=is_trainable, **hub)

    def save_adapter(self, save_directory: str | os.PathLike[str], adapter_name: str | None = None) -> None:
        """Write an adapter into a folder in PEFT's format; see `loquent.torch.adapters.save_adapter`."""
        from loquent.torch.adapters.files import save_adapter

        save_adapter(_model(self), save_directory, adapter_name)

    def set_adapter(self, adapter_name: str | Iterable[str]) -> None:
        """Make these the active adapters: the sum of their updates is added.

        Raises:
            ArgumentError: there is no such adapter, or adapters are merged.
        """
        from loquent.torch.adapters.attach import choose

        choose(_model(self), adapter_name)

    def disable_adapters(self) -> None:
        """Let no adapter act, until `enable_adapters`.

        Raises:
            ArgumentError: there are no adapters, or some are merged.
        """
        from loquent.torch.adapters.attach import enable

        enable(_model(self), False)

    def enable_adapters(self) -> None:
        """Let the active adapters act again.

        Raises:
            ArgumentError: there are no adapters, or some are merged.
        """
        from loquent.torch.adapters.attach import enable

        enable(_model(self), True)

    def active_adapters(self) -> list[str]:
        """The names of the active adapters.

        Raises:
            ArgumentError: there are no adapters.
        """
        from loquent.torch.adapters.attach import known

        return list(known(_model(self)).active)

    def delete_adapter(self, adapter_names: str | Iterable[str]) -> None:
        """Take adapters away.

        Raises:
            ArgumentError: there is no such adapter, or adapters are merged.
        """
        from loquent.torch.adapters.attach import delete

        delete(_model(self), adapter_names)

    @property
    def peft_config(self) -> dict[str, LoraConfig]:
        """Each adapter's config by its name; empty without adapters."""
        return {} if self._adapters is None else dict(self._adapters.configs)

    def _check_resizable(self) -> None:
        """Refuse another size of the vocabulary where an adapter was made for this one.

        Raises:
            ArgumentError: it adapts the head, or has head or embedding whole.
        """
        from loquent.torch.adapters.attach import check_resizable

        check_resizable(self._adapters)

    def merge_adapter(self, adapter_names: str | Iterable[str] | None = None) -> Merged:
        """Put the active adapters, or those named, into the weights; see `loquent.torch.adapters.merging.merge`."""
        from loquent.torch.adapters.merging import merge

        return merge(_model(self), adapter_names)

    def unmerge_adapter(self) -> None:
        """Make the weights what they were before merging, bit for bit.

        Raises:
            ArgumentError: nothing is merged.
        """
        from loquent.torch.adapters.merging import unmerge

        unmerge(_model(self))

    def merge_and_unload(self: A, adapter_names: str | Iterable[str] | None = None) -> A:
        """Put adapters into the weights for good, and make the model a plain one; returns the model itself."""
        from loquent.torch.adapters.merging import merge_and_unload

        merge_and_unload(_model(self), adapter_names)
        return self


def _model(methods: AdapterMethods) -> PreTrainedModel:
    from loquent.torch.model import PreTrainedModel

    assert isinstance(methods, PreTrainedModel)
    return methods
