"""What a choice means, said by the array rules: the reference for whatever selects by itself."""

from __future__ import annotations

import numpy as np

from loquent.decoding.arrays import log_softmax
from loquent.decoding.choice import NO_NUMBERS, NOTHING_LEFT, Choice, Chosen, Drafted
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules import (
    Context,
    MinP,
    RepetitionPenalty,
    Rule,
    Suppress,
    Temperature,
    TopK,
    TopP,
    apply_rules,
)
from loquent.decoding.selection import best, drawn, most_likely
from loquent.decoding.verification import verdicts
from loquent.decoding.wants import Odds, Proposal, Verify


def choose(row: np.ndarray, choice: Choice) -> Chosen:
    """The answer for a row of logits (vocabulary,), float32, which is used up."""
    scores = log_softmax(row[None]) if choice.normalized else row[None].copy()
    row[:] = 12345.0
    seen = np.zeros(0, np.int64) if choice.seen is None else choice.seen
    scores = apply_rules(scores, [tuple(_rules(choice))], [Context(seen, len(seen))])
    if np.isnan(scores).any():
        return NO_NUMBERS
    if scores.max() == -np.inf:
        return NOTHING_LEFT
    if choice.best:
        [found] = best(scores, [choice.best])
        return found.tokens, found.scores.astype(np.float32)
    if choice.draft:
        return drafted(scores, choice)
    if choice.sampled and choice.offer is not None:
        return verified(scores, choice, choice.offer)
    if choice.sampled:
        return int(drawn(scores, [uniform(choice.seed, choice.position, Purpose.DRAW)])[0])
    return int(most_likely(scores)[0])


def drafted(scores: np.ndarray, choice: Choice) -> Drafted | str:
    weights = np.exp(scores[0].astype(np.float64) - scores.max())
    odds = Odds.of(weights / weights.sum())
    if scores.max() == np.inf:
        return NO_NUMBERS
    if choice.sampled:
        token = int(drawn(scores, [uniform(choice.seed, choice.position, Purpose.DRAFT)])[0])
        return token, odds.tokens, odds.probabilities
    token = int(most_likely(scores)[0])
    return token, np.array([token]), np.array([odds.probability(token)])


def verified(scores: np.ndarray, choice: Choice, offer: Proposal) -> int:
    verdict = verdicts(
        np.concatenate([scores, scores]),
        Verify((offer,)),
        lambda row, purpose: uniform(choice.seed, choice.position, purpose),
    )
    return offer.token if verdict.accepted else verdict.token


def _rules(choice: Choice) -> list[Rule]:
    rules: list[Rule] = []
    if choice.penalty != 1:
        rules.append(RepetitionPenalty(choice.penalty))
    if choice.banned is not None:
        rules.append(Suppress(tuple(choice.banned.tolist())))
    if choice.temperature != 1:
        rules.append(Temperature(choice.temperature))
    if choice.top_k:
        rules.append(TopK(choice.top_k))
    if choice.top_p < 1:
        rules.append(TopP(choice.top_p))
    if choice.min_p:
        rules.append(MinP(choice.min_p))
    return rules
