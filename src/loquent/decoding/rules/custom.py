"""A caller's own logits processors, in transformers' calling convention: `processor(input_ids, scores) -> scores`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, beside, namespace
from loquent.decoding.rules.base import Context, Rule
from loquent.errors import ArgumentError


@dataclass(frozen=True)
class Custom(Rule):
    """Calls each processor for one row at a time, with ids (1, length) and scores (1, vocabulary), both unpadded."""

    processors: tuple[Callable[[Array, Array], Array], ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Custom], contexts: Sequence[Context]) -> Array:
        rows = []
        for row, (rule, context) in enumerate(zip(rules, contexts)):
            own = scores[row : row + 1, :]
            for processor in rule.processors:
                given = own
                own = processor(beside(scores, context.tokens)[None, :], given)
                if getattr(own, "shape", None) != given.shape:
                    returned = type(own).__name__ if not hasattr(own, "shape") else f"shape {tuple(own.shape)}"
                    raise ArgumentError(
                        f"logits_processor {processor!r:.80} returned {returned} for scores of shape "
                        f"{tuple(given.shape)}. Return scores of that shape, changed or not."
                    )
            rows.append(own)
        return namespace(scores).concat(rows, axis=0)
