"""Suppressed tokens: banned always, only for the first generated token, or until a length is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, ban
from loquent.decoding.rules.base import Context, Rule


def _ban_for_rows(scores: Array, banned: Sequence[tuple[int, ...]]) -> Array:
    rows = [row for row, tokens in enumerate(banned) for _ in tokens]
    return ban(scores, rows, [token for tokens in banned for token in tokens])


@dataclass(frozen=True)
class Suppress(Rule):
    """Bans `tokens` at every step."""

    tokens: tuple[int, ...]

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Suppress], contexts: Sequence[Context]) -> Array:
        return _ban_for_rows(scores, [rule.tokens for rule in rules])


@dataclass(frozen=True)
class SuppressAtBegin(Rule):
    """Bans `tokens` as the generated token number `index`: 0, or 1 behind a forced first token."""

    tokens: tuple[int, ...]
    index: int = 0

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[SuppressAtBegin], contexts: Sequence[Context]) -> Array:
        return _ban_for_rows(
            scores,
            [rule.tokens if context.generated == rule.index else () for rule, context in zip(rules, contexts)],
        )


@dataclass(frozen=True)
class MinLength(Rule):
    """Bans the end tokens `ends` until at least `total` tokens, the prompt's included, and `new` ones are there."""

    ends: tuple[int, ...]
    total: int = 0
    new: int = 0

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[MinLength], contexts: Sequence[Context]) -> Array:
        return _ban_for_rows(
            scores,
            [
                rule.ends if len(context.tokens) < rule.total or context.generated < rule.new else ()
                for rule, context in zip(rules, contexts)
            ],
        )
