"""Diverse beam search: groups of beams, each kept from the tokens of those before it (Vijayakumar et al., 2016).

    score(x[:t]) = score(x[:t-1]) + log p(x[t] | x[<t]) - diversity_penalty * (how often earlier groups chose x[t] now)

arXiv:1610.02424, with Hamming diversity. Each group has its own finished hypotheses, and is done when they are final;
the best of all groups are the result. The penalty stays in the scores, and is there before rules act.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.strategies.beam import advance
from loquent.decoding.strategies.hypotheses import (
    Candidate,
    EarlyStopping,
    Ended,
    Finished,
    Live,
    Ranking,
    cut_off,
    divided,
    extensions,
    pool_size,
    report,
    settle,
    told,
)
from loquent.decoding.task import Read, Select, Strategy, Task
from loquent.decoding.trace import Branched
from loquent.decoding.wants import Candidates, Rows, Top


@dataclass(eq=False)
class _Group:
    """Beams that compete with each other."""

    finished: Finished
    live: list[Live]
    first: int = 0  # the number of its first beam among those of all groups
    done: bool = False
    pool: list[Candidate] = field(default_factory=list)  # what its last step weighed
    ended: list[Ended] = field(default_factory=list)  # what of that became hypotheses

    @property
    def beams(self) -> list[Candidate]:
        """The live ones."""
        return [beam for beam, _ in self.live]

    def step(self, task: Task, answers: Items[Candidates], count: int) -> list[int]:
        """Choose the next beams; returns their last tokens."""
        self.pool = pool = extensions(self.beams, answers, count, self.first)
        self.ended, self.live = divided(task, pool, self.finished.ranking.width)
        self.finished.add(self.ended)
        chosen = [beam.tokens[-1] for beam in self.beams]
        self.done = not chosen or self.finished.are_final(pool[0])
        if self.done:
            self.live = []
        return chosen

    def close(self) -> None:
        """What is live has no time or room to go on."""
        last, self.live = cut_off(self.live), []
        self.ended = self.ended + last
        self.finished.add(last)


def diverse_beam_search(
    task: Task,
    *,
    width: int,
    groups: int,
    diversity_penalty: float,
    length_penalty: float,
    early_stopping: EarlyStopping,
    filler: int | None = None,
) -> Strategy:
    """Ranks the best `task.decoding.returned` hypotheses of `groups` groups of `width // groups` beams.

    The beams of a group that is done count as choosing the token `filler`, as transformers' padding does.
    """
    size = width // groups
    ranking = Ranking(size, length_penalty, early_stopping, task.decoding.stopping.max_new_tokens)
    sequences, parts = (
        [task.open()],
        [_Group(Finished(ranking), [(Candidate(0, (), 0.0), None)]) for _ in range(groups)],
    )
    feeds: list[Items[int] | NDArray[np.int64]] = [task.prompt]
    count = pool_size(task, size)
    for step in itertools.count():
        blocks = yield [Read(sequence, feed, Rows()) for sequence, feed in zip(sequences, feeds)]
        stepped, chosen = [(group, part) for group, part in enumerate(parts) if not part.done], list[int]()
        for part in parts:
            if part.done:
                chosen += [] if filler is None else [filler] * size
                continue
            lanes, bias = slice(part.first, part.first + len(part.live)), _bias(chosen, diversity_penalty)
            answers = yield [Select(*pair, Top(count), bias) for pair in zip(sequences[lanes], blocks[lanes])]
            chosen += part.step(task, answers, count)
        live = [each for part in parts for each in part.live]
        is_over = not live or bool(cut_off(live))
        for group, part in stepped:
            if is_over:
                part.close()
            if task.note:
                nodes = told(part.pool, part.beams, part.ended, first=part.first, base=group * size)
                task.note(Branched(step, nodes, group))
        if is_over:
            break
        beams = _numbered(parts)
        settle(task, beams, _together(parts, width))
        sequences = advance(sequences, beams)
        feeds = [beam.tokens[-1:] for beam in beams]
    report(task, _together(parts, width))


def _bias(chosen: Items[int], penalty: float) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """What the tokens that earlier groups have chosen lose."""
    if not chosen:
        return None
    tokens, counts = np.unique(np.array(chosen, np.int64), return_counts=True)
    return tokens, -penalty * counts.astype(np.float64)


def _numbered(parts: Items[_Group]) -> list[Candidate]:
    """The beams of all groups, which are numbered through."""
    beams: list[Candidate] = []
    for part in parts:
        part.first = len(beams)
        beams += part.beams
    return beams


def _together(parts: Items[_Group], width: int) -> Finished:
    """The finished hypotheses of all groups."""
    whole = Finished(replace(parts[0].finished.ranking, width=width))
    whole.add([ended for part in parts for ended in part.finished.best])
    return whole
