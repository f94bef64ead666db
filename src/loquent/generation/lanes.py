"""Lanes: which recorded rows stand where in the tensors of an output; it makes no tensors.

A request has one lane, a beam search one a beam; the tensors of an output have a row for each lane of each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.config import GenerationConfig
from loquent.decoding.recording import RecordedRow, Recording
from loquent.decoding.task import Hypothesis


@dataclass(frozen=True, eq=False)
class Lanes:
    """The rows that the tokens of one request were chosen from: at each step one for each of `width` lanes."""

    config: GenerationConfig
    steps: list[list[RecordedRow]]
    healed: int = 0  # how many tokens the results have before the first step: the prompt's last, made again

    @property
    def width(self) -> int:
        """How many lanes there are."""
        return self.config.num_beams

    def ways(self, tokens: Sequence[int]) -> list[list[int]]:
        """The lanes that each of a result's tokens may have been chosen from; groups of beams may agree for long."""
        whole, size, healed = tuple(tokens), self.width // self.config.num_beam_groups, self.healed
        found = []
        for first in range(0, self.width, size):
            lanes = [
                next(
                    (lane for lane in range(first, first + size) if rows[lane].generated == whole[: healed + step]), -1
                )
                for step, rows in enumerate(self.steps[: len(whole) - healed])
            ]
            if -1 not in lanes:
                found.append(lanes)
        return found

    def way(self, result: Hypothesis) -> list[int]:
        """The lane that each of a result's tokens was chosen from: the way that its score tells of."""
        ways = self.ways(result.tokens)
        if len(ways) == 1 or result.score is None:
            return ways[0]
        wanted = result.score * len(result.tokens) ** self.config.length_penalty
        return min(ways, key=lambda way: abs(self._total(way, result.tokens) - wanted))

    def _total(self, way: Sequence[int], tokens: Sequence[int]) -> float:
        rows = [rows[lane].scores for rows, lane in zip(self.steps, way)]
        return sum(float(row[token]) for row, token in zip(rows, tokens[self.healed :]) if row is not None)


def lanes_of(recording: Recording, config: GenerationConfig, best: Hypothesis, healed: int = 0) -> Lanes:
    """The lanes of a request that was asked for by `config`, and whose best result is `best`."""
    if config.num_beams == 1:
        return Lanes(config, [[row] for row in recording.path(best.tokens)[healed:]], healed)
    width = config.num_beams
    first, *others = recording.lanes() or [[]]
    # What all beams, or all of a group, begin with has been read once. For those missing later, rules left no token.
    begun = [first[lane * len(first) // width] for lane in range(width)] if first else []
    steps = [begun, *((rows + rows[:1] * width)[:width] for rows in others)] if first else []
    return Lanes(config, steps[healed:], healed)
