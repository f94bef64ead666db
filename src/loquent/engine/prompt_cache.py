"""A prompt cache at work: pages from a file before a request begins, and into one once its prompt has been read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Sequence
from loquent.engine.prompt_file import Origin, SavedPrompt, key_digest, read_prompt, write_prompt
from loquent.engine.reader import Reader


class PromptCache:
    """A file with the pages of one prompt's beginning, for one request.

    The file is read when this is made. It is written where the prompt has whole pages that it lacks: `take` copies
    them from the store, and `write` writes them.

    Args:
        path: the file, which need not be there.
        model: a digest of the model.
        reader: what the request reads with.
        prompt: the request's, (n,).
        span: how long its sequences may become.

    Raises:
        CheckpointError: the file is damaged, or none of ours.
        ArgumentError: it is another model's or another kind of store's.
    """

    def __init__(self, path: Path, model: str, reader: Reader, prompt: NDArray[np.int64], span: int) -> None:
        self.path, self.span = path, span
        self.reused = 0  # how many tokens the file's pages hold of the prompt
        self._reader, self._prompt = reader, prompt
        self._origin = Origin(model, reader.store.format, reader.space.page_size, reader.space.groups)
        self._key = key_digest(reader.backend.prefix_key(span))
        # The last token is always read, for its row.
        self._whole = (len(prompt) - 1) // reader.space.page_size * reader.space.page_size
        self._found = self._read()
        self._taken: SavedPrompt | None = None
        self._is_wanted = self._whole > 0 and not self._is_there()

    def restore(self) -> None:
        """Let the store remember what the file holds of the prompt; under the engine's lock."""
        if self._found is not None:
            self._reader.restore(self._found, self.span)

    def take(self, sequence: Sequence) -> bool:
        """Copy the prompt's pages, if it is the prompt that the sequence has read; under the engine's lock."""
        if sequence.home is not self._reader or sequence.stored < self._whole:
            return False
        if not np.array_equal(sequence.tokens[: self._whole], self._prompt[: self._whole]):
            return False
        if self._is_wanted:
            self._taken = SavedPrompt(
                self._prompt[: self._whole].copy(), self._reader.saved(sequence, self._whole), self._key
            )
        return True

    def write(self) -> None:
        """Write what was taken, if anything was.

        Raises:
            ArgumentError: the file cannot be written.
        """
        if self._taken is not None:
            taken, self._taken = self._taken, None
            write_prompt(self.path, self._origin, taken)

    def _read(self) -> SavedPrompt | None:
        """What the file holds of the prompt."""
        if not self.path.exists():
            return None
        saved = read_prompt(self.path, self._origin, self._reader.backend.vocabulary)
        if saved.key != self._key:  # of another length, where that changes what keys are: read anew, and written over
            return None
        found = saved.beginning(self._prompt[: self._whole], self._origin)
        self.reused = 0 if found is None else len(found.tokens)
        return found

    def _is_there(self) -> bool:
        return self._found is not None and len(self._found.tokens) == self._whole
