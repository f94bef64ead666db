"""Which tables of cosines each sequence of a step uses: most models have one for all, some one for each length."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loquent.engine.backend import Segment
from loquent.parts import Rotary
from loquent.rotary import frequencies, table_key

if TYPE_CHECKING:
    from loquent.native._core import Plan

_TABLES = 64
_SPANS = 4096


class RotaryTables:
    """The tables of one plan, made as they are first needed. A plan never forgets a table: see `crowded`."""

    def __init__(self, plan: Plan, rotaries: Sequence[Rotary]) -> None:
        self._plan, self._rotaries = plan, rotaries
        self._tables: dict[Hashable, int] = {}
        self._spans: dict[int, list[int]] = {}
        self._alike = all(table_key(rotary, 1) is None for rotary in rotaries)
        if self._alike:  # table i is then rotary i's, which is what a plan assumes where it is told nothing
            self._of_span(1)

    def crowded(self, segments: Sequence[Segment]) -> bool:
        """Whether so many tables are there, and not by these segments alone, that the plan is better made anew."""
        return len(self._tables) > _TABLES and len(self._tables) > 2 * len(self._rotaries) * len(segments)

    def of(self, segments: Sequence[Segment]) -> list[list[int]] | None:
        """For each segment the table of each rotary; None where all segments use the same ones."""
        if self._alike:
            return None
        if len(self._spans) > _SPANS:
            self._spans.clear()
        return [self._spans.get(segment.span) or self._of_span(segment.span) for segment in segments]

    def _of_span(self, span: int) -> list[int]:
        found = [self._table(index, rotary, span) for index, rotary in enumerate(self._rotaries)]
        self._spans[span] = found
        return found

    def _table(self, index: int, rotary: Rotary, span: int) -> int:
        key = index, table_key(rotary, span)
        if key not in self._tables:
            values, factor = frequencies(rotary, span)
            self._tables[key] = self._plan.table(np.array(values, np.float32), factor)
        return self._tables[key]
