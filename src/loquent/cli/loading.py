"""Loads the model that a command's options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loquent.cli.options import ModelOptions

if TYPE_CHECKING:
    from loquent.text import TextModel


def load_model(options: ModelOptions) -> TextModel:
    """The model, with errors as `loquent.load` raises them."""
    from loquent.text import load

    return load(
        options.model,
        precision=options.precision.value,
        device=options.device,
        revision=options.revision,
        local_files_only=options.offline,
    )
