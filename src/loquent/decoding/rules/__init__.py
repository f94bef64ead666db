"""Rules on scores, written once for every array library; `apply_rules` runs the rows of all requests through theirs."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.decoding.arrays import Array, beside
from loquent.decoding.rules.bad_words import BadWords
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.custom import Custom
from loquent.decoding.rules.forced import ForcedBegin, ForcedEnd
from loquent.decoding.rules.grammar import Grammar
from loquent.decoding.rules.min_p import MinP
from loquent.decoding.rules.ngrams import NoRepeatNgrams
from loquent.decoding.rules.repetition import RepetitionPenalty
from loquent.decoding.rules.suppressed import MinLength, Suppress, SuppressAtBegin
from loquent.decoding.rules.temperature import Temperature
from loquent.decoding.rules.top_k import TopK
from loquent.decoding.rules.top_p import TopP

ORDER: tuple[type[Rule], ...] = (
    *(RepetitionPenalty, NoRepeatNgrams, BadWords, MinLength, ForcedBegin, ForcedEnd, Suppress, SuppressAtBegin),
    Custom,
    Grammar,  # behind all that bans or forces tokens, so that nothing puts one back
    *(Temperature, TopK, TopP, MinP),
)
"""The order in which rules act, whatever the order in which they were given; it is transformers'."""

__all__ = [
    "ORDER",
    "BadWords",
    "Context",
    "Custom",
    "ForcedBegin",
    "ForcedEnd",
    "Grammar",
    "MinLength",
    "MinP",
    "NoRepeatNgrams",
    "RepetitionPenalty",
    "Rule",
    "Suppress",
    "SuppressAtBegin",
    "Temperature",
    "TopK",
    "TopP",
    "apply_rules",
]


def apply_rules(scores: Array, rules: Sequence[tuple[Rule, ...]], contexts: Sequence[Context]) -> Array:
    """The scores (rows, vocabulary) after each row's own rules; a row has at most one rule of a kind.

    Each kind acts once, on all rows that have it. `scores` may be changed in place.
    """
    present = {type(rule) for row in rules for rule in row}
    for kind in ORDER:
        if kind not in present:
            continue
        chosen = [(row, rule) for row, own in enumerate(rules) for rule in own if type(rule) is kind]
        rows = [row for row, _ in chosen]
        settings, seen = [rule for _, rule in chosen], [contexts[row] for row in rows]
        if len(rows) == len(rules):
            scores = kind.apply(scores, settings, seen)
        else:
            index = beside(scores, rows)
            scores[index] = kind.apply(scores[index], settings, seen)
    return scores
