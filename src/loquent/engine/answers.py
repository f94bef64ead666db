"""What single rows of logits answer, for the rows of all requests at once: rules, then selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, log_softmax, namespace, put, to_numpy
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.recording import RecordedRow, kept
from loquent.decoding.rules import Context, apply_rules
from loquent.decoding.selection import best, different, drawn, most_likely
from loquent.decoding.verification import verdicts
from loquent.decoding.wants import (
    Candidates,
    Draws,
    Likeliest,
    Next,
    Odds,
    Proposal,
    Propose,
    Scores,
    Top,
    Verify,
    Weighed,
    Weighing,
)
from loquent.engine.request import Asked
from loquent.errors import ArgumentError

NO_NUMBERS_MESSAGE = (
    "the model's logits are not numbers (NaN or infinite). Its weights may be damaged, or its dtype too narrow."
)
NOTHING_LEFT_MESSAGE = "the rules leave no token to choose. Relax bad_words_ids, suppress_tokens or the processors."


class Row(NamedTuple):
    """A row of logits, and what it answers."""

    number: int
    asked: Asked
    length: int | None = None  # how many tokens of the sequence it is behind; None: all

    @property
    def context(self) -> Context:
        """What its rules may look at."""
        return self.asked.request.task.context(self.asked.sequence, self.length)


def _processed(rows: list[Row], logits: Array, normalized: bool) -> Array:
    """Scores of some rows after their requests' rules, on log-probabilities where `normalized`."""
    own = [row.number for row in rows]
    rules = [_rules_on(row.asked) for row in rows]
    biases = [row.asked.select and row.asked.select.bias for row in rows]
    everything = own == list(range(logits.shape[0]))
    if everything and not any(rules) and not any(biases):
        scores = logits
    elif not any(rules) and not normalized and own == list(range(own[0], own[-1] + 1)):
        scores = logits[own[0] : own[-1] + 1, :]  # a view, which nobody changes
    else:
        scores = logits[beside(logits, own)]  # a copy, which biases and rules may change
    if normalized:
        scores = log_softmax(scores)
    for row, bias in enumerate(biases):
        if bias:
            scores = _biased(scores, row, *bias)
    if any(rules):
        scores = apply_rules(scores, rules, [row.context for row in rows])
        _spare(rows, scores, normalized)
    _record(rows, logits, scores)
    return scores


def _spare(rows: list[Row], scores: Array, normalized: bool) -> None:
    """Where rules leave no token of a row, put the spare row of its block there, if it has one, after the rules."""
    spares = [None if row.asked.select is None else row.asked.select.block.spare for row in rows]
    if all(spare is None for spare in spares):
        return
    left = to_numpy(namespace(scores).max(scores, axis=-1)) > -math.inf
    for index, (row, spare) in enumerate(zip(rows, spares)):
        if spare is not None and not left[index]:
            own = namespace(scores).asarray(_of_block(row, spare), copy=True)
            own = apply_rules(log_softmax(own) if normalized else own, [_rules_on(row.asked)], [row.context])
            scores[index, :] = own[0, :]


def _record(rows: list[Row], logits: Array, scores: Array) -> None:
    """Keep what outputs want of these rows: `logits` as they came, and `scores` after the rules, row by row."""
    for index, row in enumerate(rows):
        asked = row.asked
        recording = asked.request.recording
        if recording is None or isinstance(asked.want, Propose):
            continue
        tokens = row.context.tokens[len(asked.request.task.prompt) :].tolist()
        recording.rows[asked.request.rounds, asked.number, len(tokens)] = RecordedRow(
            tuple(tokens),
            kept(scores[index, :], "scores" in recording.wanted),
            kept(_raw(row, logits), "logits" in recording.wanted),
        )


def _raw(row: Row, logits: Array) -> Array:
    """The row as the model gave it, without what a source or a strategy has made of it."""
    if row.asked.select is None:
        return logits[row.number, :]
    block = row.asked.select.block
    return _of_block(row, block.logits if block.raw is None else block.raw)[0, :]


def _of_block(row: Row, rows: Array) -> Array:
    """The row (1, vocabulary) among those of its block."""
    behind = 0 if row.length is None else len(row.asked.sequence) - row.length
    place = int(rows.shape[0]) - 1 - behind
    return rows[place : place + 1, :]


def _biased(scores: Array, row: int, tokens: NDArray[np.int64], values: NDArray[np.float64]) -> Array:
    """The scores with `values` added to those of some different tokens of a row."""
    rows = np.full(len(tokens), row)
    raised = scores[beside(scores, rows), beside(scores, tokens)] + beside(scores, values, scores.dtype)
    return put(scores, rows, tokens, raised)


def _rules_on(asked: Asked) -> tuple[Any, ...]:
    if isinstance(asked.want, Propose) and not asked.want.ruled:
        return ()
    return asked.request.task.decoding.rules


def _samples(asked: Asked) -> bool:
    return asked.request.task.decoding.sampled and (not isinstance(asked.want, Propose) or asked.want.drawn)


def _number(row: Row, purpose: Purpose, index: int = 0) -> float:
    """The random number for a place in a request's text, whatever else runs."""
    task = row.asked.request.task
    position = task.position if row.length is None and purpose is Purpose.DRAW else len(row.context.tokens)
    return uniform(task.decoding.seed, position, purpose, index)


def _number_of(rows: list[Row], index: int, purpose: Purpose) -> float:
    return _number(rows[index], purpose)


def _next(rows: list[Row], logits: Array) -> list[int]:
    return _chosen(rows, _processed(rows, logits, normalized=False))


def _weighed(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=False)
    tokens = _chosen(rows, scores)
    scores = log_softmax(scores)
    found = best(scores, [want.count for want in (row.asked.want for row in rows) if isinstance(want, Weighed)])
    return [
        Weighing(token, float(_named(scores, number, (token,))[0]), candidates)
        for number, (token, candidates) in enumerate(zip(tokens, found))
    ]


def _chosen(rows: list[Row], scores: Array) -> list[int]:
    """A token of each row: drawn where its request samples, else the most likely."""
    sampled = [_samples(row.asked) for row in rows]
    _check(scores, np.array(sampled))
    tokens = np.zeros(len(rows), np.int64) if all(sampled) else most_likely(scores)
    if any(sampled):
        draws = [i for i, draw in enumerate(sampled) if draw]
        numbers = [_number(rows[i], Purpose.DRAW) for i in draws]
        tokens[draws] = drawn(scores if len(draws) == len(rows) else scores[beside(scores, draws)], numbers)
    return [int(token) for token in tokens]


def _check(scores: Array, sampled: NDArray[np.bool_]) -> None:
    """Refuses what cannot be chosen from: rules that leave nothing, and logits that are no numbers, or whose
    probabilities are none where they are needed."""
    highest = to_numpy(namespace(scores).max(scores, axis=-1))
    if np.isnan(highest).any() or (sampled & (highest == math.inf)).any():
        raise ArgumentError(NO_NUMBERS_MESSAGE)
    if (highest == -math.inf).any():
        raise ArgumentError(NOTHING_LEFT_MESSAGE)


def _top(rows: list[Row], logits: Array) -> list[Any]:
    wants = [row.asked.want for row in rows]
    scores = _processed(rows, logits, normalized=True)
    candidates = best(scores, [want.count for want in wants if isinstance(want, Top)])
    if any(np.isnan(answer.scores).any() for answer in candidates):  # they count as the largest
        raise ArgumentError(NO_NUMBERS_MESSAGE)
    return [
        Candidates(found.tokens, found.scores, also=_named(scores, number, want.also))
        if isinstance(want, Top) and want.also
        else found
        for number, (want, found) in enumerate(zip(wants, candidates))
    ]


def _likeliest(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=False)
    _check(scores, np.ones(len(rows), np.bool_))
    wants = [row.asked.want for row in rows]
    return best(log_softmax(scores), [want.count for want in wants if isinstance(want, Likeliest)])


def _named(scores: Array, row: int, tokens: tuple[int, ...]) -> NDArray[np.float64]:
    """The scores of some tokens of a row."""
    return to_numpy(scores[row, :][beside(scores, tokens)]).astype(np.float64)


def _draws(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=True)
    if np.isnan(to_numpy(namespace(scores).max(scores, axis=-1))).any():
        raise ArgumentError(NO_NUMBERS_MESSAGE)
    answers = []
    for number, row in enumerate(rows):
        want = row.asked.want
        if isinstance(want, Draws):
            first = want.lane << 16
            uniforms = [_number(row, Purpose.GUMBEL, first + index) for index in range(2 * want.count)]
            answers.append(different(to_numpy(scores[number, :]), uniforms))
    return answers


def _scores(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=True)
    return [scores[row, :] for row in range(len(rows))]


def _probabilities(scores: Array) -> Array:
    xp = namespace(scores)
    weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def _proposals(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=False)
    left = to_numpy(namespace(scores).max(scores, axis=-1)) != -math.inf
    if left.all():
        return _proposed(rows, scores)
    # A draft may come to where the rules leave nothing and the model would not.
    live = np.flatnonzero(left).tolist()
    found = iter(_proposed([rows[i] for i in live], scores[beside(scores, live)]) if live else ())
    return [next(found) if has_any else None for has_any in left]


def _proposed(rows: list[Row], scores: Array) -> list[Proposal]:
    sampled = [_samples(row.asked) for row in rows]
    _check(scores, np.array(sampled))
    tokens, probabilities = most_likely(scores), _probabilities(scores)
    draws = [i for i, draw in enumerate(sampled) if draw]
    if draws:
        tokens[draws] = drawn(scores[beside(scores, draws)], [_number(rows[i], Purpose.DRAFT) for i in draws])
    confidences = to_numpy(probabilities[beside(scores, np.arange(len(rows))), beside(scores, tokens)])
    return [
        Proposal(int(tokens[i]), float(confidences[i]), Odds.of(to_numpy(probabilities[i, :])) if sampled[i] else None)
        for i in range(len(rows))
    ]


def _verdicts(rows: list[Row], logits: Array) -> list[Any]:
    scores = _processed(rows, logits, normalized=False)
    answers: list[Any] = []
    start = 0
    while start < len(rows):
        asked = rows[start].asked
        want = asked.want
        if isinstance(want, Verify):
            own = rows[start : start + len(want.proposals) + 1]
            number = partial(_number_of, own) if _samples(asked) else None
            part = scores[start : start + len(own), :]
            start += len(own)
            with np.errstate(invalid="ignore"):  # rows behind a draft that falls may hold no numbers
                verdict = verdicts(part, want, number)
            reached = part[: verdict.accepted + 1, :]  # what is behind a draft that falls is nobody's
            _check(reached, np.full(verdict.accepted + 1, number is not None))
            answers.append(verdict)
    return answers


ANSWERS: dict[type, Callable[[list[Row], Array], list[Any]]] = {
    Next: _next,
    Weighed: _weighed,
    Top: _top,
    Likeliest: _likeliest,
    Draws: _draws,
    Scores: _scores,
    Propose: _proposals,
    Verify: _verdicts,
}
