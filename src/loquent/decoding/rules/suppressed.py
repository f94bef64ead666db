"""Suppressed tokens: banned always, only for the first generated token, or until a length is reached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, ban
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule


class _Ban(Rule):
    """Bans some tokens of the rule's own in some contexts."""

    @property
    @abstractmethod
    def banned(self) -> tuple[int, ...]:
        """What it bans."""

    @abstractmethod
    def acts(self, context: Context) -> bool:
        """Whether it does in this context."""

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[_Ban], contexts: Sequence[Context]) -> Array:
        pairs = [
            (row, token)
            for row, (rule, context) in enumerate(zip(rules, contexts))
            if rule.acts(context)
            for token in rule.banned
        ]
        return ban(scores, [row for row, _ in pairs], [token for _, token in pairs])

    def narrow(self, choice: Choice, context: Context) -> bool:
        if self.acts(context):
            choice.ban(self._as_array)
        return True

    @cached_property
    def _as_array(self) -> NDArray[np.int64]:
        return np.array(self.banned, np.int64)


@dataclass(frozen=True)
class Suppress(_Ban):
    """Bans `tokens` at every step."""

    tokens: tuple[int, ...]

    @property
    def banned(self) -> tuple[int, ...]:
        return self.tokens

    def acts(self, context: Context) -> bool:
        return True


@dataclass(frozen=True)
class SuppressAtBegin(_Ban):
    """Bans `tokens` as the generated token number `index`: 0, or 1 behind a forced first token."""

    tokens: tuple[int, ...]
    index: int = 0

    @property
    def banned(self) -> tuple[int, ...]:
        return self.tokens

    def acts(self, context: Context) -> bool:
        return context.generated == self.index


@dataclass(frozen=True)
class MinLength(_Ban):
    """Bans the end tokens `ends` until at least `total` tokens, the prompt's included, and `new` ones are there."""

    ends: tuple[int, ...]
    total: int = 0
    new: int = 0

    @property
    def banned(self) -> tuple[int, ...]:
        return self.ends

    def acts(self, context: Context) -> bool:
        return len(context.tokens) < self.total or context.generated < self.new
