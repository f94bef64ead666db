"""Delivery: from a step's rows to the answers that strategies want, rules and selection included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, log_softmax, namespace, to_numpy
from loquent.decoding.choice import NO_NUMBERS, NOTHING_LEFT, Chosen
from loquent.decoding.selection import most_likely
from loquent.decoding.wants import (
    Block,
    Candidates,
    Hidden,
    LastRow,
    Likelihood,
    Odds,
    Proposal,
    Propose,
    Targets,
    TargetScores,
    Top,
    Verdict,
    Verify,
)
from loquent.engine.answers import ANSWERS, NO_NUMBERS_MESSAGE, NOTHING_LEFT_MESSAGE, Row
from loquent.engine.backend import Backend, Forward
from loquent.engine.request import Asked
from loquent.engine.scheduler import Share
from loquent.errors import ArgumentError


def deliver(shares: Sequence[Share], forward: Forward, backend: Backend) -> None:
    """Answer every read that a step has completed; a failure fails the request that caused it, and no other.

    Args:
        shares: the step's work, in its order.
        forward: what the backend made of it.
        backend: it, whose head looks at hidden states.
    """
    groups: dict[type, list[Row]] = {}
    lenses = _Lenses(backend)
    complete: list[Asked] = []
    row = scored = 0
    for share, chosen in zip(shares, forward.chosen or repeat(None)):
        pending = share.pending
        row, scored = row + share.rows, scored + share.scored  # behind the share's
        if chosen is not None:
            _take(pending.asked[0], chosen)
            continue
        for asked in pending.asked:
            if isinstance(asked.want, LastRow):  # mostly
                if share.last:
                    groups.setdefault(type(asked.want), []).append(Row(scored - 1, asked))
            elif isinstance(asked.want, Verify) and share.last and asked.want.rows(0) <= share.scored:  # in one piece
                count = asked.want.rows(0)
                if len(pending.asked) > 1 or not _verified(asked, asked.want, scored - count, forward):
                    groups.setdefault(Verify, []).extend(_rows_of(asked, scored - count, count))
            else:
                _gather(asked, share, forward, lenses, row, scored)
                complete += [asked] if share.last else []
    lenses.look()
    for asked in complete:
        _join(asked, forward.logits)
    if groups:
        _answer(groups, forward.logits)


def select(selections: Sequence[Asked]) -> None:
    """Answer what is asked about rows that earlier reads gave."""
    groups: dict[type, list[Row]] = {}
    blocks: list[Array] = []
    start = 0
    for asked in selections:
        if asked.select is None:
            raise ValueError("a selection needs the rows to select from")
        block = asked.select.block.logits
        count = asked.want.rows(block.shape[0])
        block = block[block.shape[0] - count :, :]
        blocks.append(block)
        groups.setdefault(type(asked.want), []).extend(_rows_of(asked, start, count))
        start += count
    _answer(groups, blocks[0] if len(blocks) == 1 else namespace(blocks[0]).concat(blocks, axis=0))


def _rows_of(asked: Asked, first: int, count: int) -> list[Row]:
    """The last `count` rows of what the sequence holds, from row `first` of the logits on."""
    behind = len(asked.sequence) - count + 1
    return [Row(first + index, asked, behind + index) for index in range(count)]


def _answer(groups: dict[type, list[Row]], logits: Array) -> None:
    if any(_calls_back(row.asked) for rows in groups.values() for row in rows):
        # The caller's own code may run the model again, which may write where these rows are.
        logits = namespace(logits).asarray(logits, copy=True)
    for want, rows in groups.items():
        _isolated(ANSWERS[want], rows, logits)


def _calls_back(asked: Asked) -> bool:
    return any(rule.calls_back for rule in asked.request.task.decoding.rules)


def _take(asked: Asked, chosen: Chosen) -> None:
    """The backend's own answer."""
    answer: Any = None
    if isinstance(chosen, int):
        answer = Proposal(chosen) if isinstance(asked.want, Propose) else chosen
    elif isinstance(chosen, tuple) and len(chosen) == 3:
        token, tokens, probabilities = chosen
        odds = Odds(tokens, probabilities)
        is_drawn = asked.request.task.decoding.sampled and isinstance(asked.want, Propose) and asked.want.drawn
        answer = Proposal(token, odds.probability(token), odds if is_drawn else None)
    elif isinstance(chosen, tuple):
        found, scores = chosen  # in the backend's memory, perhaps
        answer = Candidates(found.astype(np.int64), scores.astype(np.float64))
    elif chosen == NOTHING_LEFT and isinstance(asked.want, Propose):
        answer = None
    elif chosen == NOTHING_LEFT and isinstance(asked.want, Top):
        answer = Candidates(np.zeros(0, np.int64), np.zeros(0))
    elif not asked.request.done:
        asked.request.fail(ArgumentError(NO_NUMBERS_MESSAGE if chosen == NO_NUMBERS else NOTHING_LEFT_MESSAGE))
    asked.answer, asked.done = answer, True


def _verified(asked: Asked, want: Verify, first: int, forward: Forward) -> bool:
    """Let the backend say what stands, row by row from `first` on; whether it could."""
    chooser = asked.request.chooser
    if forward.choose is None or chooser is None or want.weighed:
        return False
    accepted = 0
    while True:
        choice = chooser.verified(accepted, want, asked.sequence)
        if choice is None:
            return False
        chosen = forward.choose(first + accepted, choice)
        if not isinstance(chosen, int):
            _take(asked, chosen)
            return True
        if accepted == len(want.proposals) or chosen != want.proposals[accepted].token:
            asked.settle(Verdict(accepted, chosen))
            return True
        accepted += 1


def _isolated(answer: Callable[[list[Row], Array], list[Any]], rows: list[Row], logits: Array) -> None:
    """Answer rows together; if that fails, one want at a time, so that the request at fault fails alone."""
    asked = list(dict.fromkeys([row.asked for row in rows]))
    try:
        answers = answer(rows, logits)
    except Exception as error:
        if len(asked) == 1:
            asked[0].request.fail(error)
            return
        for one in asked:
            if not one.request.done:
                _isolated(answer, [row for row in rows if row.asked is one], logits)
        return
    for one, value in zip(asked, answers):
        one.settle(value)


# --- what several rows answer, chunk by chunk ------------------------------------------------------------------------


class _Lenses:
    """What a step's blocks are to see through the head, at once: its weights take longer to read than to use."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: list[tuple[dict[int, Array], int, Array]] = []

    def add(self, lenses: dict[int, Array], layers: dict[int, Array]) -> None:
        """Put the logits of some layers' states (rows, width) into `lenses`, when they are there."""
        self._waiting += [(lenses, layer, states) for layer, states in layers.items()]

    def look(self) -> None:
        """They are there now."""
        if not self._waiting:
            return
        logits, start = self._backend.head(_stacked([states for _, _, states in self._waiting])), 0
        for lenses, layer, states in self._waiting:
            lenses[layer] = logits[start : start + states.shape[0], :]
            start += states.shape[0]


def _gather(asked: Asked, share: Share, forward: Forward, lenses: _Lenses, row: int, scored: int) -> None:
    """What a share gives of a want about several rows; `row` and `scored` are behind its rows and logits."""
    want, pending = asked.want, share.pending
    left = pending.left  # of the read, behind this share
    asked.parts = [] if asked.parts is None else asked.parts
    count = max(0, min(share.count - share.again, want.rows(len(pending.read.tokens)) - left))
    if isinstance(want, Likelihood):
        asked.parts.append(_likelihood(share, forward.logits[scored - count : scored, :]))
    elif isinstance(want, Targets):
        last = len(want.tokens) - left  # the shares to come have the others
        targets = np.asarray(want.tokens[last - count : last], np.int64)
        asked.parts.append(_target_scores(forward.logits[scored - count : scored, :], targets))
    elif count:
        layers = {layer: forward.hidden[layer][row - count : row, :] for layer in want.layers}
        if isinstance(want, Hidden):
            asked.parts.append({layer: _copied(states) for layer, states in layers.items()})
        else:
            seen: dict[int, Array] = {}
            lenses.add(seen, layers)
            asked.parts.append(Block(_copied(forward.logits[scored - count : scored, :]), seen))


def _join(asked: Asked, logits: Array) -> None:
    """Answer a want about several rows from its parts."""
    want, parts = asked.want, asked.parts or []
    if isinstance(want, Likelihood):
        asked.settle(np.concatenate(parts) if parts else np.zeros(0))
    elif isinstance(want, Targets):
        gained = np.concatenate([part.log_probabilities for part in parts])
        asked.settle(TargetScores(gained, np.concatenate([part.likeliest for part in parts])))
    elif isinstance(want, Hidden):
        asked.settle({layer: _stacked([part[layer] for part in parts]) for layer in want.layers})
    else:
        block = Block(
            _stacked([part.logits for part in parts]),
            {layer: _stacked([part.lenses[layer] for part in parts]) for layer in want.layers},
        )
        if isinstance(want, Verify):
            rows = _rows_of(asked, 0, block.logits.shape[0])
            _isolated(ANSWERS[Verify], rows, block.logits)
        else:
            asked.settle(block)


def _copied(array: Array) -> Array:
    return namespace(array).asarray(array, copy=True)


def _stacked(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts, axis=0)


def _likelihood(share: Share, logits: Array) -> NDArray[np.float64]:
    """Log-probabilities of the read's own tokens that a share's rows predict."""
    fed, tokens = share.pending.fed, share.pending.read.tokens
    targets = tokens[fed - share.rows + 1 : fed + 1]
    if not len(targets):
        return np.zeros(0)
    rows = np.arange(len(targets))
    gained = log_softmax(logits[: len(targets), :])[beside(logits, rows), beside(logits, targets)]
    return to_numpy(gained).astype(np.float64)


_ROWS_AT_ONCE = 64
"""Rows whose probabilities are worked out together: of large vocabularies they take more memory than the logits."""


def _target_scores(logits: Array, targets: NDArray[np.int64]) -> TargetScores:
    """What rows of logits say of the tokens that follow them."""
    gained, likeliest = np.zeros(len(targets)), np.zeros(len(targets), np.bool_)
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows, own = logits[part, :], targets[part]
        picked = log_softmax(rows)[beside(rows, np.arange(len(own))), beside(rows, own)]
        gained[part] = to_numpy(picked)
        likeliest[part] = most_likely(rows) == own
    return TargetScores(gained, likeliest)
