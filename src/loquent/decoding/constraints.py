"""Constraints on what beams write: phrases that must appear; each object keeps how far it is met, beams do the rest.

Source: https://huggingface.co/docs/transformers/main_classes/text_generation#transformers.Constraint
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

from loquent.errors import ArgumentError

_MOST_STEPS = 10_000


class Constraint(ABC):
    """Something that a text must hold, met token by token; to be subclassed.

    A subclass sets `seqlen`, the most tokens that it takes to be met. Taking what `advance` offers, over and over, must
    meet it; a subclass that calls `super().__init__()` when it is ready has that tested.
    """

    seqlen: int

    def __init__(self) -> None:
        self.test()

    def test(self) -> None:
        """Meet the constraint by its own steps.

        Raises:
            ArgumentError: they do not lead there.
        """
        steps_of(self)
        self.reset()

    @abstractmethod
    def advance(self) -> int | list[int] | None:
        """The token, or the tokens any of which, would be a step further; None where there are no more."""

    @abstractmethod
    def does_advance(self, token_id: int) -> bool:
        """Whether the token would be a step further; nothing changes."""

    @abstractmethod
    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        """Take a token; returns whether it was a step further, has met the constraint, and has undone its steps."""

    @abstractmethod
    def reset(self) -> None:
        """Undo all steps."""

    @abstractmethod
    def remaining(self) -> int:
        """How many more steps meet it."""

    @abstractmethod
    def copy(self, stateful: bool = False) -> Constraint:
        """The same constraint, with the steps taken where `stateful`."""


class PhrasalConstraint(Constraint):
    """Met by some tokens, one behind the other.

    Args:
        token_ids: the tokens, one or more.

    Raises:
        ArgumentError: there are none, or they are no token ids.
    """

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = _tokens(token_ids, "token_ids")
        self.seqlen = len(self.token_ids)
        self.fulfilled_idx = -1  # of the last token taken
        self.completed = False

    def advance(self) -> int | None:
        return None if self.completed else self.token_ids[self.fulfilled_idx + 1]

    def does_advance(self, token_id: int) -> bool:
        return token_id == self.advance()

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.fulfilled_idx += 1
        self.completed = self.remaining() == 0
        return True, self.completed, False

    def reset(self) -> None:
        self.fulfilled_idx, self.completed = -1, False

    def remaining(self) -> int:
        return self.seqlen - (self.fulfilled_idx + 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_ids})"

    def __deepcopy__(self, memo: Any) -> PhrasalConstraint:
        return copy.copy(self)  # enough, and many times faster: its list never changes

    def copy(self, stateful: bool = False) -> PhrasalConstraint:
        twin = PhrasalConstraint(self.token_ids)
        if stateful:
            twin.fulfilled_idx, twin.completed = self.fulfilled_idx, self.completed
        return twin


class DisjunctiveConstraint(Constraint):
    """Met by any one of several phrases, such as the forms of a word.

    Args:
        nested_token_ids: the phrases, of one or more tokens each; none may be the beginning of another.

    Raises:
        ArgumentError: there are none, they are no token ids, or one begins another.
    """

    def __init__(self, nested_token_ids: list[list[int]]) -> None:
        if not isinstance(nested_token_ids, list) or not nested_token_ids:
            raise ArgumentError(f"nested_token_ids={nested_token_ids!r} must be a list of phrases, of one or more.")
        self.token_ids = [_tokens(phrase, "nested_token_ids") for phrase in nested_token_ids]
        for phrase in self.token_ids:
            if any(other[: len(phrase)] == phrase for other in self.token_ids if other is not phrase):
                raise ArgumentError(
                    f"nested_token_ids has {phrase}, which begins another of its phrases. Leave one of the two out."
                )
        self.seqlen = max(map(len, self.token_ids))
        self.current_seq: list[int] = []
        self.completed = False

    def _next(self) -> list[int]:
        """The tokens behind those taken, each once."""
        taken = len(self.current_seq)
        return list(
            dict.fromkeys(
                phrase[taken] for phrase in self.token_ids if len(phrase) > taken and phrase[:taken] == self.current_seq
            )
        )

    def advance(self) -> list[int] | None:
        return self._next() or None

    def does_advance(self, token_id: int) -> bool:
        return token_id in self._next()

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.current_seq = [*self.current_seq, token_id]  # a new list: copies share the old one
        self.completed = not self._next()
        return True, self.completed, False

    def reset(self) -> None:
        self.current_seq, self.completed = [], False

    def remaining(self) -> int:
        return 0 if self.completed else self.seqlen - len(self.current_seq)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token_ids})"

    def __deepcopy__(self, memo: Any) -> DisjunctiveConstraint:
        return copy.copy(self)  # enough: its lists never change

    def copy(self, stateful: bool = False) -> DisjunctiveConstraint:
        twin = DisjunctiveConstraint(self.token_ids)
        if stateful:
            twin.current_seq, twin.completed = self.current_seq, self.completed
        return twin


def steps_of(constraint: Constraint) -> list[int]:
    """The tokens that a constraint offers on the way to being met, which it is then.

    Raises:
        ArgumentError: the way does not lead there.
    """
    offered: list[int] = []
    for _ in range(_MOST_STEPS):
        step = constraint.advance()
        options = step if isinstance(step, list) else [] if step is None else [step]
        if not options or not constraint.does_advance(options[0]):
            raise ArgumentError(
                f"{_named(constraint)} offers {step!r}, and does not advance by it. Mend its advance()."
            )
        offered += options
        _, is_met, _ = constraint.update(options[0])
        if is_met:
            if constraint.remaining():
                raise ArgumentError(f"{_named(constraint)} is met, and has steps remaining. Mend its remaining().")
            return offered
    raise ArgumentError(f"{_named(constraint)} is not met by {_MOST_STEPS} steps of its own. Mend its update().")


def check_constraint(constraint: Any, vocabulary: int, ends: tuple[int, ...]) -> None:
    """Refuse what is no constraint, or none on tokens of the vocabulary, behind which there can be others.

    Raises:
        ArgumentError: it says what is missing.
    """
    missing = [name for name in (*Constraint.__abstractmethods__, "seqlen") if not hasattr(constraint, name)]
    if missing:
        raise ArgumentError(
            f"constraints has {constraint!r:.80}, which has no {min(missing)}. Pass a PhrasalConstraint, a "
            "DisjunctiveConstraint, or an object of a subclass of Constraint."
        )
    offered = set(steps_of(constraint.copy()))
    if isinstance(constraint, DisjunctiveConstraint):
        offered |= {token for phrase in constraint.token_ids for token in phrase}
    bad = next((token for token in offered if not 0 <= token < vocabulary), None)
    if bad is not None:
        raise ArgumentError(
            f"a constraint asks for the token {bad}; the vocabulary is 0 to {vocabulary - 1}. "
            "Make its phrases with the model's own tokenizer."
        )
    if offered & set(ends):
        raise ArgumentError(
            f"a constraint asks for the end token {min(offered & set(ends))}, behind which nothing comes. "
            "Leave it out of the phrases, or out of eos_token_id."
        )


def _named(constraint: Constraint) -> str:
    return f"the constraint {type(constraint).__name__}"


def _tokens(given: Any, argument: str) -> list[int]:
    """A phrase that can be one."""
    if not isinstance(given, list) or not given:
        raise ArgumentError(f"{argument} has {given!r} for a phrase. Pass a list of one token id or more.")
    bad = [token for token in given if isinstance(token, bool) or not isinstance(token, int) or token < 0]
    if bad:
        raise ArgumentError(f"{argument} has {bad[0]!r} in a phrase. Token ids are integers from 0.")
    return list(given)
