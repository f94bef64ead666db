"""Beam search: the `width` best beginnings are extended together (Sutskever et al., 2014, arXiv:1409.3215).

    score(x[:t]) = score(x[:t-1]) + log p(x[t] | x[<t]);  hypotheses rank by score / generated ** length_penalty

Each step keeps a pool of `max(2, 1 + end tokens) * width` candidates, so that `width` of them can go on whatever ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Sequence
from loquent.decoding.stopping import Reason
from loquent.decoding.task import Hypothesis, Read, Strategy, Task
from loquent.decoding.wants import Candidates, Top
from loquent.errors import ArgumentError

EarlyStopping = bool | Literal["never"]

# Scores that agree to so many decimals count as equal, and the tokens decide: sums of float32 numbers differ in their
# last digits with the company that a request has, and a tie must not fall one way alone and another way in a batch.
_DECIMALS = 5


@dataclass(frozen=True)
class Candidate:
    """A live beam's extension by one token: which beam, all of its generated tokens, and their log-probability."""

    parent: int
    tokens: tuple[int, ...]
    score: float

    def value(self, length: int, penalty: float) -> float:
        """What it counts for when `length` tokens long, without the digits that depend on company."""
        return round(self.score, _DECIMALS) / float(length**penalty)

    def order(self, penalty: float) -> tuple[float, tuple[int, ...]]:
        """What candidates are sorted by, best first."""
        return -self.value(len(self.tokens), penalty), self.tokens


def beam_search(task: Task, *, width: int, length_penalty: float, early_stopping: EarlyStopping) -> Strategy:
    """Ranks the best `task.decoding.returned` of at most `width` finished hypotheses."""
    sequences, beams = [task.open()], [Candidate(0, (), 0.0)]
    feeds: list[Items[int] | NDArray[np.int64]] = [task.prompt]
    pool_size = max(2, 1 + len(task.decoding.stopping.eos)) * width
    finished: list[tuple[Candidate, Reason]] = []
    longest = task.decoding.stopping.max_new_tokens
    while True:
        answers = yield [Read(*pair, Top(pool_size)) for pair in zip(sequences, feeds)]
        pool = extensions(beams, answers, pool_size)
        reasons = [task.ends(candidate.tokens) for candidate in pool]
        finished += [(candidate, reason) for candidate, reason in zip(pool[:width], reasons) if reason]
        finished = sorted(finished, key=lambda ended: ended[0].order(length_penalty))[:width]
        beams = [candidate for candidate, reason in zip(pool, reasons) if not reason][:width]
        is_full = len(finished) == width
        if not beams or (
            is_full and not _may_improve(beams[0], finished[-1][0], longest, length_penalty, early_stopping)
        ):
            break
        sequences = advance(sequences, beams)
        feeds = [beam.tokens[-1:] for beam in beams]
    if len(finished) < task.decoding.returned:
        raise ArgumentError(
            f"the rules leave {len(finished)} continuations, where num_return_sequences={task.decoding.returned} are "
            "asked for. Relax bad_words_ids, suppress_tokens or the processors, or ask for fewer."
        )
    task.rank(
        [
            Hypothesis(best.tokens, reason, best.score / len(best.tokens) ** length_penalty)
            for best, reason in finished[: task.decoding.returned]
        ]
    )


def extensions(beams: Items[Candidate], answers: Items[Candidates], count: int) -> list[Candidate]:
    """The best `count` candidates of all beams, which are equally long, best first."""
    # In the order of `Candidate.order`; tokens are only put together for those that stay.
    pool = sorted(
        (-round(beam.score + gain, _DECIMALS), beam.tokens, token, parent, gain)
        for parent, (beam, answer) in enumerate(zip(beams, answers))
        for token, gain in zip(answer.tokens.tolist(), answer.scores.tolist())
        if gain > -math.inf
    )
    return [
        Candidate(parent, (*tokens, token), beams[parent].score + gain)
        for _, tokens, token, parent, gain in pool[:count]
    ]


def advance(sequences: Items[Sequence], beams: Items[Candidate]) -> list[Sequence]:
    """A sequence for each beam: its parent's, or a fork of it where several go on; those of no beam are closed."""
    heirs = {beam.parent: index for index, beam in reversed(list(enumerate(beams)))}
    for parent, sequence in enumerate(sequences):
        if parent not in heirs:
            sequence.close()
    return [
        sequences[beam.parent] if heirs[beam.parent] == index else sequences[beam.parent].fork()
        for index, beam in enumerate(beams)
    ]


def _may_improve(
    best: Candidate, worst: Candidate, longest: int, length_penalty: float, early_stopping: EarlyStopping
) -> bool:
    """Whether the best live beam could still beat the worst of a full set of finished ones."""
    if early_stopping is True:
        return False
    length = longest if early_stopping == "never" and length_penalty > 0 else len(best.tokens)
    return best.value(length, length_penalty) > worst.value(len(worst.tokens), length_penalty)
