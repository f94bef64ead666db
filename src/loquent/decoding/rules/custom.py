"""A caller's own logits processors, in transformers' calling convention: `processor(input_ids, scores) -> scores`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, beside, namespace
from loquent.decoding.rules.base import Context, Rule


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
                own = processor(beside(scores, context.tokens)[None, :], own)
            rows.append(own)
        return namespace(scores).concat(rows, axis=0)
