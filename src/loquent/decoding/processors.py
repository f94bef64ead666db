"""Logits processors as objects, in transformers' calling convention: the base classes of a caller's own rules.

`generate(logits_processor=[...])` calls each with one row at a time: unpadded ids (1, length), scores (1, vocabulary).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any


class LogitsProcessor(ABC):
    """Changes the scores of the next token."""

    @abstractmethod
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The changed scores (rows, vocabulary), of the type of `scores`; ids are (rows, length)."""


class LogitsProcessorList(list[LogitsProcessor]):
    """Several processors, one after another."""

    def __init__(self, processors: Iterable[LogitsProcessor] = ()) -> None:
        super().__init__(processors)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        for processor in self:
            scores = processor(input_ids, scores)
        return scores
