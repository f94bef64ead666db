"""Lanes: which recorded rows stand where in the tensors of an output; it makes no tensors.

A request has one lane, a beam search one a beam; the tensors of an output have a row for each lane of each request.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loquent.config import GenerationConfig
from loquent.decoding.recording import RecordedRow, Recording
from loquent.decoding.task import Hypothesis

_MOST_WAYS = 4096


@dataclass(frozen=True, eq=False)
class Lanes:
    """The rows that the tokens of one request were chosen from: at each step one for each of `width` lanes."""

    config: GenerationConfig
    steps: list[list[RecordedRow | None]]  # None where there is no such beam any more
    healed: int = 0  # how many tokens the results have before the first step: the prompt's last, made again

    @property
    def width(self) -> int:
        """How many lanes there are."""
        return self.config.num_beams

    def way(self, result: Hypothesis) -> list[int]:
        """The lane that each of a result's tokens was chosen from.

        Beams of different groups may have the same beginning. Of the ways that there are then, the score tells.
        """
        before = [tuple(result.tokens[:count]) for count in range(self.healed, len(result.tokens))]
        lanes = [
            [lane for lane, row in enumerate(rows) if row and row.generated == text]
            for rows, text in zip(self.steps, before)
        ]
        first = [some[0] for some in lanes]
        if result.score is None or not 1 < math.prod(map(len, lanes)) <= _MOST_WAYS:
            return first
        wanted = result.score * len(result.tokens) ** self.config.length_penalty
        return list(min(itertools.product(*lanes), key=lambda way: abs(self._total(way, result.tokens) - wanted)))

    def _total(self, way: Iterable[int], tokens: Sequence[int]) -> float:
        rows = [rows[lane] for rows, lane in zip(self.steps, way)]
        return sum(
            float(row.scores[token])
            for row, token in zip(rows, tokens[self.healed :])
            if row is not None and row.scores is not None
        )


def lanes_of(recording: Recording, config: GenerationConfig, best: Hypothesis, healed: int = 0) -> Lanes:
    """The lanes of a request that was asked for by `config`, and whose best result is `best`."""
    if config.num_beams == 1:
        return Lanes(config, [[row] for row in recording.path(best.tokens)[healed:]], healed)
    width, steps = config.num_beams, []
    for step, rows in enumerate(recording.lanes()):
        if not step:  # what all beams, or all of a group, begin with has been read once
            rows = [rows[lane * len(rows) // width] for lane in range(width)]
        steps.append([*rows, *[None] * width][:width])
    return Lanes(config, steps[healed:], healed)
