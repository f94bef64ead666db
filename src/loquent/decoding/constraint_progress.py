"""How far a text has met several constraints: a value that never changes, and that a token turns into the next one."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

from loquent.decoding.constraints import Constraint


@dataclass(frozen=True, eq=False)
class Progress:
    """One constraint is worked on at a time: the first that a token advances, until it is met or a token breaks it.

    Constraints with steps taken are copied deeply, since `copy(stateful=True)` may share what `update` changes.
    """

    waiting: tuple[Constraint, ...]  # without steps
    longest: int  # how many steps the longest takes
    met: int = 0  # how many are
    current: Constraint | None = None  # which is worked on

    @classmethod
    def over(cls, constraints: Items[Constraint]) -> Progress:
        """Nothing has been met yet."""
        fresh = tuple(constraint.copy() for constraint in constraints)
        return cls(fresh, max(constraint.seqlen for constraint in fresh))

    @property
    def complete(self) -> bool:
        """Whether all constraints are met."""
        return not self.waiting and self.current is None

    @property
    def bank(self) -> int:
        """How much is met: the steps of the current one, and those of the longest for each that is."""
        started = self.longest - self.current.remaining() if self.current else 0
        return self.met * self.longest + started

    def steps(self) -> tuple[int, ...]:
        """The tokens that would take it further, each once."""
        offered: list[int] = []
        for constraint in (self.current,) if self.current else self.waiting:
            step = constraint.advance()
            offered += step if isinstance(step, list) else [] if step is None else [step]
        return tuple(dict.fromkeys(offered))

    def behind(self, tokens: Iterable[int]) -> Progress:
        """With these tokens too."""
        made = self
        for token in tokens:
            if made.complete:
                break
            made = made._with(token)
        return made

    def _with(self, token: int) -> Progress:
        if self.current is not None:
            return self._worked_on(copy.deepcopy(self.current), token)
        for index, constraint in enumerate(self.waiting):
            if constraint.does_advance(token):
                others = self.waiting[:index] + self.waiting[index + 1 :]
                return replace(self, waiting=others)._worked_on(copy.deepcopy(constraint), token)
        return self

    def _worked_on(self, constraint: Constraint, token: int) -> Progress:
        """A copy of the current constraint takes the token."""
        _, is_met, is_broken = constraint.update(token)
        if is_broken:  # the token that breaks it does not begin another one
            return replace(self, current=None, waiting=(*self.waiting, constraint.copy()))
        if is_met:
            return replace(self, current=None, met=self.met + 1)
        return replace(self, current=constraint)
