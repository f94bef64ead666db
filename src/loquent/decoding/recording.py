"""What an output wants kept of a request's rows, such as `output_scores`: plain data; it computes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, to_numpy

Recorded = Literal["scores", "logits", "texts"]


@dataclass(frozen=True, eq=False)
class RecordedRow:
    """A row that tokens were chosen from."""

    generated: tuple[int, ...]  # what the row is behind, without the prompt
    scores: NDArray[np.float32] | None  # (vocabulary,) after the rules
    logits: NDArray[np.float32] | None  # (vocabulary,) as the model gave them


@dataclass(eq=False)
class Recording:
    """The rows of one request, those of drafts that fell included."""

    wanted: frozenset[Recorded]
    # By the strategy's round, the number of what it asked then, and how many tokens the row is behind.
    rows: dict[tuple[int, int, int], RecordedRow] = field(default_factory=dict)

    def lanes(self) -> list[list[RecordedRow]]:
        """For each step the rows that were behind as many generated tokens, in the order of the strategy's asking."""
        steps: dict[int, list[RecordedRow]] = defaultdict(list)
        for _, row in sorted(self.rows.items(), key=itemgetter(0)):
            steps[len(row.generated)].append(row)
        return [steps[step] for step in range(max(steps, default=-1) + 1)]

    def path(self, tokens: Sequence[int]) -> list[RecordedRow]:
        """The rows that the tokens of a result were chosen from, (len(tokens),)."""
        whole = tuple(tokens)
        found = {row.generated: row for row in self.rows.values() if row.generated == whole[: len(row.generated)]}
        return [found[whole[:step]] for step in range(len(whole))]


def kept(row: Array, wanted: bool) -> NDArray[np.float32] | None:
    """A copy of a row on the host, if it is wanted."""
    return np.array(to_numpy(row), np.float32) if wanted else None
