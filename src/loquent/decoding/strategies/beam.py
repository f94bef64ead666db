"""Beam search: the `width` best beginnings are extended together (Sutskever et al., 2014, arXiv:1409.3215).

    score(x[:t]) = score(x[:t-1]) + log p(x[t] | x[<t]);  hypotheses rank by score / generated ** length_penalty

Each step keeps a pool of `max(2, 1 + end tokens) * width` candidates, so that `width` of them can go on whatever ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Sequence
from loquent.decoding.strategies.hypotheses import (
    Candidate,
    EarlyStopping,
    Finished,
    Ranking,
    extensions,
    pool_size,
    report,
    settle,
    told,
)
from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.trace import Branched
from loquent.decoding.wants import Candidates, Top, Want

Pool = Callable[[Items[Candidate], Items[Candidates], int], list[Candidate]]
"""From the beams, the answers behind them, and a count, to so many candidates; the first `width` of them may end."""


def beam_search(task: Task, *, width: int, length_penalty: float, early_stopping: EarlyStopping) -> Strategy:
    """Ranks the best `task.decoding.returned` of at most `width` finished hypotheses."""
    ranking = Ranking(width, length_penalty, early_stopping, task.decoding.stopping.max_new_tokens)
    want = Top(pool_size(task, width))
    return search(task, ranking, lambda count, lane: want, extensions)


def search(
    task: Task, ranking: Ranking, want: Callable[[int, int], Want], pool_of: Pool, *, drawn: bool = False
) -> Strategy:
    """Beams, whatever their candidates come from.

    Args:
        task: the request's.
        ranking: how hypotheses compare.
        want: what is asked behind each beam, by how many candidates there are and the beam's number.
        pool_of: makes the candidates of it.
        drawn: whether they come in another order than best first.
    """
    sequences, beams = [task.open()], [Candidate(0, (), 0.0)]
    feeds: list[Items[int] | NDArray[np.int64]] = [task.prompt]
    width, count = ranking.width, pool_size(task, ranking.width)
    finished = Finished(ranking)
    for step in itertools.count():
        answers = yield [
            Read(sequence, feed, want(count, lane)) for lane, (sequence, feed) in enumerate(zip(sequences, feeds))
        ]
        pool = pool_of(beams, answers, count)
        reasons = [task.ends(candidate.tokens) for candidate in pool]
        ended = [(candidate, reason) for candidate, reason in zip(pool[:width], reasons) if reason]
        finished.add(ended)
        live = [candidate for candidate, reason in zip(pool, reasons) if not reason]
        beams = (sorted(live, key=lambda candidate: candidate.order) if drawn else live)[:width]
        is_over = not beams or finished.are_final(beams[0])
        if task.note:
            task.note(Branched(step, told(pool, [] if is_over else beams, ended)))
        if is_over:
            break
        settle(task, beams, finished)
        sequences = advance(sequences, beams)
        feeds = [beam.tokens[-1:] for beam in beams]
    report(task, finished)


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
