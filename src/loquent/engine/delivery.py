"""Delivery: from a step's rows of logits to the answers that reads want, rules and selection included."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, log_softmax, namespace, to_numpy
from loquent.decoding.choice import NO_NUMBERS, NOTHING_LEFT, Chosen
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules import Custom, apply_rules
from loquent.decoding.selection import best, drawn, most_likely
from loquent.decoding.wants import Candidates, Likelihood, Next, Scores, Top
from loquent.engine.backend import Forward
from loquent.engine.request import PendingRead
from loquent.engine.scheduler import Share
from loquent.errors import ArgumentError

Row = tuple[int, PendingRead]
"""The number of a row of logits, and the read that it answers."""

_NO_NUMBERS = (
    "the model's logits are not numbers (NaN or infinite). Its weights may be damaged, or its dtype too narrow."
)
_NOTHING_LEFT = "the rules leave no token to choose. Relax bad_words_ids, suppress_tokens or the processors."


def deliver(shares: Sequence[Share], forward: Forward) -> None:
    """Answer every read that a step has completed; a failure fails the request that caused it, and no other.

    Args:
        shares: the step's work, in its order.
        forward: what the backend made of it.
    """
    groups: dict[type, list[Row]] = {}
    start = 0
    for share, chosen in zip(shares, forward.chosen or repeat(None)):
        pending = share.pending
        if chosen is not None:
            _take(pending, chosen)
        elif isinstance(pending.read.want, Likelihood):
            _likelihood(share, forward.logits[start : start + share.rows])
        elif share.last:
            groups.setdefault(type(pending.read.want), []).append((start + share.rows - 1, pending))
        start += share.rows
    logits = forward.logits
    if any(_calls_back(pending) for rows in groups.values() for _, pending in rows):
        # The caller's own code may run the model again, which may write where these rows are.
        logits = namespace(logits).asarray(logits, copy=True)
    for want, rows in groups.items():
        _isolated(_ANSWERS[want], rows, logits)


def _calls_back(pending: PendingRead) -> bool:
    return any(isinstance(rule, Custom) for rule in pending.request.task.decoding.rules)


def _take(pending: PendingRead, chosen: Chosen) -> None:
    """The backend's own answer."""
    if isinstance(chosen, int):
        pending.answer = chosen
    elif isinstance(chosen, tuple):
        tokens, scores = chosen  # in the backend's memory, perhaps
        pending.answer = Candidates(tokens.astype(np.int64), scores.astype(np.float64))
    elif chosen == NOTHING_LEFT and isinstance(pending.read.want, Top):
        pending.answer = Candidates(np.zeros(0, np.int64), np.zeros(0))
    elif not pending.request.done:
        pending.request.fail(ArgumentError(_NO_NUMBERS if chosen == NO_NUMBERS else _NOTHING_LEFT))
    pending.done = True


def _isolated(answer: Callable[[list[Row], Array], list[Any]], rows: list[Row], logits: Array) -> None:
    """Answer rows together; if that fails, one by one, so that the request at fault fails alone."""
    try:
        answers = answer(rows, logits)
    except Exception as error:
        if len(rows) == 1:
            rows[0][1].request.fail(error)
            return
        for row in rows:
            _isolated(answer, [row], logits)
        return
    for (_, pending), value in zip(rows, answers):
        pending.answer, pending.done = value, True


def _processed(rows: list[Row], logits: Array, normalized: bool) -> Array:
    """Scores of some rows after their requests' rules, on log-probabilities where `normalized`."""
    own = [row for row, _ in rows]
    rules = [pending.request.task.decoding.rules for _, pending in rows]
    everything = own == list(range(logits.shape[0]))
    if everything and not any(rules):
        scores = logits
    else:
        scores = logits[beside(logits, own)]  # a copy, which rules may change
    if normalized:
        scores = log_softmax(scores)
    if not any(rules):
        return scores
    contexts = [pending.request.task.context(pending.read.sequence) for _, pending in rows]
    return apply_rules(scores, rules, contexts)


def _next(rows: list[Row], logits: Array) -> list[int]:
    scores = _processed(rows, logits, normalized=False)
    sampled = [pending.request.task.decoding.sampled for _, pending in rows]
    _check(to_numpy(namespace(scores).max(scores, axis=-1)), np.array(sampled))
    tokens = np.zeros(len(rows), np.int64) if all(sampled) else most_likely(scores)
    if any(sampled):
        draws = [i for i, draw in enumerate(sampled) if draw]
        numbers = [_draw_number(rows[i][1]) for i in draws]
        tokens[draws] = drawn(scores if len(draws) == len(rows) else scores[beside(scores, draws)], numbers)
    return [int(token) for token in tokens]


def _draw_number(pending: PendingRead) -> float:
    """The random number of a request's draw at a place in its text, whatever else runs."""
    task = pending.request.task
    return uniform(task.decoding.seed, task.position, Purpose.DRAW)


def _check(highest: NDArray[Any], sampled: NDArray[np.bool_]) -> None:
    """Refuses what cannot be chosen from: rules that leave nothing, and logits that are no numbers, or whose
    probabilities are none where they are needed."""
    if np.isnan(highest).any() or (sampled & (highest == math.inf)).any():
        raise ArgumentError(_NO_NUMBERS)
    if (highest == -math.inf).any():
        raise ArgumentError(_NOTHING_LEFT)


def _top(rows: list[Row], logits: Array) -> list[Any]:
    counts = [pending.read.want.count for _, pending in rows if isinstance(pending.read.want, Top)]
    candidates = best(_processed(rows, logits, normalized=True), counts)
    if any(np.isnan(answer.scores).any() for answer in candidates):  # they count as the largest
        raise ArgumentError(_NO_NUMBERS)
    return candidates


def _scores(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=True)
    return [scores[row, :] for row in range(len(rows))]


def _likelihood(share: Share, logits: Array) -> None:
    """Log-probabilities of the read's own tokens; each chunk gives those that its rows predict."""
    pending = share.pending
    targets = pending.read.tokens[pending.fed - share.rows + 1 : pending.fed + 1]
    if len(targets):
        rows = np.arange(len(targets))
        gained = log_softmax(logits[: len(targets), :])[beside(logits, rows), beside(logits, targets)]
        pending.parts = [*(pending.parts or ()), to_numpy(gained).astype(np.float64)]
    if share.last:
        pending.answer = np.concatenate(pending.parts) if pending.parts else np.zeros(0)
        pending.done = True


_ANSWERS: dict[type, Callable[[list[Row], Array], list[Any]]] = {Next: _next, Top: _top, Scores: _scores}
