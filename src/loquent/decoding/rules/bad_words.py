"""Bad words: token sequences that must not be generated; the last token of each is banned where the others stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, ban
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class BadWords(Rule):
    """Bans each of `words`, a sequence of at least one token."""

    words: tuple[tuple[int, ...], ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[BadWords], contexts: Sequence[Context]) -> Array:
        pairs = [
            (row, word[-1])
            for row, (rule, context) in enumerate(zip(rules, contexts))
            for word in rule.words
            if len(word) <= len(context.tokens) + 1 and _ends_with(context, word[:-1])
        ]
        return ban(scores, [row for row, _ in pairs], [token for _, token in pairs])


def _ends_with(context: Context, beginning: tuple[int, ...]) -> bool:
    return not beginning or tuple(context.tokens[-len(beginning) :].tolist()) == beginning
