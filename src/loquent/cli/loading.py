"""Loads the model that a command's options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loquent.cli.options import ModelOptions
from loquent.cli.terminal import Terminal

if TYPE_CHECKING:
    from loquent.text import TextModel


def load_model(options: ModelOptions, terminal: Terminal, kv_memory: str | None = None) -> TextModel:
    """The model, with errors as `loquent.load` raises them, and a notice where another backend must do.

    `kv_memory` is how much of keys and values it may hold in memory; None: as much as it may.
    """
    from loquent.text import load

    loaded = load(
        options.model,
        precision=options.precision.value,
        kv_memory=kv_memory,
        device=options.device,
        revision=options.revision,
        local_files_only=options.offline,
    )
    if loaded.obstacle:
        terminal.notice(f"PyTorch runs the model, not the native core: {loaded.obstacle}.")
    return loaded
