"""Stop strings: texts that end a sequence as soon as they are complete, wherever token borders fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loquent.errors import ArgumentError

_FEW = 12  # tokens: more than a character has, so that the last one's text shows
_BROKEN = "\N{REPLACEMENT CHARACTER}"


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

    @cached_property
    def reach(self) -> int:
        """How many of the last tokens are looked at.

        Each token but those of a broken character gives at least one character, and a character has at most four
        bytes, so this many tokens always reach back over the longest text.
        """
        return 4 * max(map(len, self.texts)) + 8

    def found(self, tokens: NDArray[np.int64]) -> bool:
        """Whether one of the texts ends within the last token's text; `reach` tokens are enough to say so.

        Mostly the last token has no character that any of them ends in, which a few tokens show.
        """
        text, settled = self._added(tokens[-_FEW:])
        added, stops = text[settled:], self.texts
        if _BROKEN not in added:  # a character that is not whole in so few tokens may be so in more
            stops = tuple(stop for character in set(added) for stop in self._by_end.get(character, ()))
        if stops and self.reach > _FEW:
            text, settled = self._added(tokens[-self.reach :])
        return any(text.find(stop, max(0, settled - len(stop) + 1)) >= 0 for stop in stops)

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """The texts by their last characters."""
        ends: dict[str, list[str]] = {}
        for text in self.texts:
            ends.setdefault(text[-1], []).append(text)
        return ends

    def _added(self, tokens: NDArray[np.int64]) -> tuple[str, int]:
        """The text of some tokens, and how much of its beginning was the same without the last."""
        window = tokens.tolist()
        before, text = self._decode(window[:-1]), self._decode(window)
        if text.startswith(before):
            return text, len(before)
        return text, next((i for i, (a, b) in enumerate(zip(before, text)) if a != b), min(len(before), len(text)))

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
