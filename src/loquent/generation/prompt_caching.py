"""The argument `prompt_cache` of `generate()`: a file that keeps what was read of a prompt; see `docs/memory.md`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Decoding
from loquent.engine import Engine, PromptCache
from loquent.engine.bounds import longest_span
from loquent.errors import ArgumentError
from loquent.generation.binding import Bound
from loquent.generation.identity import Identified, identity_of


def open_prompt_cache(
    given: Any, model: Bound, engine: Engine, rows: list[NDArray[np.int64]], decoding: Decoding
) -> PromptCache:
    """The file that `prompt_cache` names, read and checked if it is there.

    Args:
        given: the argument.
        model: what generates.
        engine: runs it.
        rows: the prompts.
        decoding: the first prompt's request.

    Raises:
        ArgumentError: there are several prompts, or the file is no such file, cannot be written, or is another model's.
        CheckpointError: the file is damaged.
    """
    reader = decoding.home or engine.main
    path = _path(given)
    if len(rows) != 1:
        raise ArgumentError(
            f"prompt_cache={given!r} keeps one prompt, and there are {len(rows)}. Generate them one by one, each with "
            "a file of its own, or leave it out."
        )
    if not isinstance(model, Identified) or not reader.backend.incremental:
        raise ArgumentError(
            f"prompt_cache={given!r} cannot work with this model, which reads its whole text for each token. Leave it "
            "out."
        )
    prompt = rows[0][: len(rows[0]) - decoding.healed]
    return PromptCache(path, identity_of(model), reader, prompt, longest_span(len(prompt), decoding))


def _path(given: Any) -> Path:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ArgumentError(f"prompt_cache={given!r:.80} is a {type(given).__name__}. Pass the name of a file.")
    path = Path(given).expanduser()
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if path.is_dir() else "is in a folder that is not there or cannot be written to"
        raise ArgumentError(f"prompt_cache={given!r} {what}. Name a file in one that can.")
    return path
