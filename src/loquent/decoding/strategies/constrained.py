"""Constrained beam search: beams that must hold given phrases (Post and Vilar, 2018, arXiv:1804.06609).

    candidates = the best extensions, and every beam + a token that takes it a step further in its constraints;
    a bank is made of those that have met as much:  of each bank the best goes on, then of each the second, ...

What has ended is a hypothesis if it meets all constraints. If too few beams do when there is no room left, the others
count as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence as Items
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.constraint_progress import Progress
from loquent.decoding.constraints import Constraint
from loquent.decoding.strategies.beam import advance
from loquent.decoding.strategies.hypotheses import (
    DECIMALS,
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
from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.trace import Branched, Node
from loquent.decoding.wants import Candidates, Top

# What a step further counts for, in log-probability, where candidates are put in the order of which banks are made.
_STEP = 100

Banked = tuple[Live, Progress]


def constrained_beam_search(
    task: Task,
    *,
    width: int,
    constraints: Items[Constraint],
    length_penalty: float,
    early_stopping: EarlyStopping,
) -> Strategy:
    """Ranks the best `task.decoding.returned` of at most `width` finished hypotheses.

    What the prompt holds counts towards the constraints.
    """
    ranking = Ranking(width, length_penalty, early_stopping, task.decoding.stopping.max_new_tokens)
    finished, count = Finished(ranking), pool_size(task, width)
    sequences, beams = [task.open()], [Candidate(0, (), 0.0)]
    states = [Progress.over(constraints).behind(task.prompt.tolist())]
    feeds: list[Items[int] | NDArray[np.int64]] = [task.prompt]
    for step in itertools.count():
        wants = [Top(count, also=state.steps()) for state in states]
        answers = yield [Read(*each) for each in zip(sequences, feeds, wants)]
        pool = extensions(beams, answers, count)
        ended, likely = divided(task, pool, width)
        steps = _steps(beams, wants, answers, {beam.tokens for beam, _ in likely})
        ended_too, further = divided(task, steps, len(steps))
        met = _meeting(ended + ended_too, states, task.decoding.stopping.eos)
        finished.add(met)
        banked = [(each, states[each[0].parent].behind(each[0].tokens[-1:])) for each in likely + further]
        chosen = (_by_banks(banked) if further else banked)[:width]
        beams, is_over = [beam for (beam, _), _ in chosen], not chosen or finished.are_final(pool[0])
        if not is_over and cut_off([live for live, _ in chosen]):
            last = _at_the_end(chosen, task.decoding.returned)
            finished.add(last)
            met, is_over = met + last, True
        if is_over and len(finished.best) < task.decoding.returned:  # rules end what has met no constraint yet
            last = [each for each in ended + ended_too if each not in met]
            finished.add(last)
            met = met + last
        if task.note:
            task.note(Branched(step, _told(pool + steps, [] if is_over else beams, met, states)))
        if is_over:
            break
        states = [state for _, state in chosen]
        settle(task, beams, finished)
        sequences = advance(sequences, beams)
        feeds = [beam.tokens[-1:] for beam in beams]
    report(task, finished)


def _meeting(ended: Items[Ended], states: Items[Progress], ends: Items[int]) -> list[Ended]:
    """Those that meet all constraints; an end token is no part of what does."""
    return [
        (candidate, reason)
        for candidate, reason in ended
        if states[candidate.parent].behind(token for token in candidate.tokens[-1:] if token not in ends).complete
    ]


def _steps(
    beams: Items[Candidate], wants: Items[Top], answers: Items[Candidates], known: set[tuple[int, ...]]
) -> list[Candidate]:
    """What takes beams a step further in their constraints, beside the candidates that are known already."""
    found: list[Candidate] = []
    for parent, (beam, want, answer) in enumerate(zip(beams, wants, answers)):
        for token, gain in zip(want.also, [] if answer.also is None else answer.also.tolist()):
            tokens = (*beam.tokens, token)
            if tokens not in known and gain > -math.inf:
                known.add(tokens)
                found.append(Candidate(parent, tokens, beam.score + gain, gain))
    return found


def _by_banks(banked: list[Banked]) -> list[Banked]:
    """The best of each bank, then the second of each, and so on; fuller banks first."""

    def order(each: Banked) -> tuple[float, tuple[int, ...]]:
        (candidate, _), state = each
        return -round(candidate.score + _STEP * state.bank, DECIMALS), candidate.tokens

    ranked = sorted(banked, key=order)
    places: list[int] = []
    for index, (_, state) in enumerate(ranked):
        goes_on = index > 0 and ranked[index - 1][1].bank == state.bank
        places.append(places[-1] + 1 if goes_on else 0)
    return [ranked[index] for index in sorted(range(len(ranked)), key=places.__getitem__)]


def _at_the_end(chosen: Items[Banked], wanted: int) -> list[Ended]:
    """The beams that meet all constraints, or all beams where these are fewer than wanted."""
    complete = [each for each, state in chosen if state.complete]
    return cut_off(complete if len(complete) >= wanted else [each for each, _ in chosen])


def _told(
    candidates: Items[Candidate], kept: Items[Candidate], ended: Items[Ended], states: Items[Progress]
) -> tuple[Node, ...]:
    """What became of the candidates, each once, with their banks."""
    pool = sorted({each.tokens: each for each in candidates}.values(), key=lambda each: each.order)
    banks = [states[each.parent].behind(each.tokens[-1:]).bank for each in pool]
    return tuple(replace(node, bank=bank) for node, bank in zip(told(pool, kept, ended), banks))
