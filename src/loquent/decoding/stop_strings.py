"""Stop strings: texts that end a sequence as soon as they are complete, wherever token borders fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loquent.errors import ArgumentError


class Decodes(Protocol):
    """What stop strings need of a tokenizer."""

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """The text of the tokens."""


@dataclass(frozen=True)
class StopStrings:
    """Texts that end a sequence as soon as one of them is complete, wherever token borders fall.

    Raises:
        ArgumentError: there is no text, or an empty one, which would end everything at once.
    """

    texts: tuple[str, ...]
    tokenizer: Decodes

    def __post_init__(self) -> None:
        if not all(self.texts) or not self.texts:
            raise ArgumentError(f"stop_strings={list(self.texts)!r} has no text, or an empty one. Leave it out.")

    @property
    def reach(self) -> int:
        """How many of the last tokens are looked at.

        Each token but those of a broken character gives at least one character, and a character has at most four
        bytes, so this many tokens always reach back over the longest text.
        """
        return 4 * max(map(len, self.texts)) + 8

    def found(self, tokens: NDArray[np.int64]) -> bool:
        """Whether one of the texts ends within the last token's text; `reach` tokens are enough to say so."""
        window = tokens[-self.reach :].tolist()
        before, text = self._decode(window[:-1]), self._decode(window)
        settled = next((i for i, (a, b) in enumerate(zip(before, text)) if a != b), min(len(before), len(text)))
        return any(text.find(stop, max(0, settled - len(stop) + 1)) >= 0 for stop in self.texts)

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
