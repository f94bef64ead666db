"""Beam-search multinomial sampling: each step draws the candidates of all beams together, without replacement.

    (beam, x[t]) ~ exp(score(x[:t-1]) + log p(x[t] | x[<t]) after the rules);  what goes on and wins, ranks by score

Rules act on log-probabilities, which are not normalised again. Drawing by Gumbel keys joins the beams' own draws: the
highest of all keys are draws from all (Kool et al., 2019, arXiv:1903.06059).
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Items

from loquent.decoding.strategies.beam import search
from loquent.decoding.strategies.hypotheses import Candidate, EarlyStopping, Ranking
from loquent.decoding.task import Strategy, Task
from loquent.decoding.wants import Candidates, Draws


def beam_sampling(task: Task, *, width: int, length_penalty: float, early_stopping: EarlyStopping) -> Strategy:
    """Ranks the best `task.decoding.returned` of at most `width` finished hypotheses that were drawn."""
    ranking = Ranking(width, length_penalty, early_stopping, task.decoding.stopping.max_new_tokens)
    return search(task, ranking, Draws, drawn_together, drawn=True)


def drawn_together(beams: Items[Candidate], answers: Items[Candidates], count: int) -> list[Candidate]:
    """The first `count` draws of all beams, in the order in which they were drawn; only the first of them may end."""
    draws = sorted(
        (-(beam.score + key), beam.tokens, token, parent, gain)
        for parent, (beam, answer) in enumerate(zip(beams, answers))
        if answer.keys is not None
        for token, gain, key in zip(answer.tokens.tolist(), answer.scores.tolist(), answer.keys.tolist())
        if gain > -math.inf
    )
    return [
        Candidate(parent, (*tokens, token), beams[parent].score + gain, gain)
        for _, tokens, token, parent, gain in draws[:count]
    ]
