"""A caller's own logits processors, in transformers' calling convention: `processor(input_ids, scores) -> scores`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loquent.decoding.arrays import Array, beside, namespace, to_numpy
from loquent.decoding.rules.base import Context, Rule
from loquent.errors import ArgumentError


@dataclass(frozen=True)
class Custom(Rule):
    """Calls each processor for one row at a time, with ids (1, length) and scores (1, vocabulary), both unpadded.

    They are arrays of the backend's library, or what `as_given` makes of them where a caller works with another.
    """

    calls_back: ClassVar[bool] = True

    processors: tuple[Callable[[Any, Any], Any], ...]
    as_given: Callable[[Any], Any] | None = None

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Custom], contexts: Sequence[Context]) -> Array:
        rows = [
            rule._processed(scores[row : row + 1, :], context)
            for row, (rule, context) in enumerate(zip(rules, contexts))
        ]
        return namespace(scores).concat(rows, axis=0)

    def _processed(self, scores: Array, context: Context) -> Array:
        own = scores if self.as_given is None else self.as_given(scores)
        for processor in self.processors:
            tokens = context.tokens[None, :].copy()  # a processor may keep or change them
            given = own
            own = processor(beside(scores, tokens) if self.as_given is None else self.as_given(tokens), given)
            if getattr(own, "shape", None) != given.shape or not isinstance(own, type(given)):
                returned = f" of shape {tuple(own.shape)}" if hasattr(own, "shape") else ""
                raise ArgumentError(
                    f"logits_processor {processor!r:.80} returned {type(own).__name__}{returned} for scores of type "
                    f"{type(given).__name__} and shape {tuple(given.shape)}. Return such scores, changed or not."
                )
        return own if self.as_given is None else beside(scores, to_numpy(own), scores.dtype)
