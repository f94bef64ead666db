"""A compiled grammar, and where in it an output is: what may come next is a function of the generated tokens alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Memory
from loquent.errors import ArgumentError

_KEPT = 16  # lists of banned tokens, of 400 KB at a vocabulary of 50,000


def short(message: str) -> str:
    """llguidance's message in a line."""
    line = " ".join(message.replace("<non-verbose/>", "").split())
    return line if len(line) <= 240 else line[:237] + "..."


class State:
    """A place in a grammar; it never changes, so that forks of a sequence share it.

    Args:
        grammar: whose place it is.
        matcher: llguidance's, this state's own; None where the tokens so far do not match.
    """

    def __init__(self, grammar: CompiledGrammar, matcher: Any) -> None:
        self.grammar, self._matcher = grammar, matcher

    @property
    def matches(self) -> bool:
        """Whether the tokens so far begin a text of the grammar."""
        return self._matcher is not None

    def after(self, tokens: Sequence[int]) -> State:
        """The place behind these tokens.

        Raises:
            ArgumentError: the grammar needs more than the limits of a step.
        """
        if self._matcher is None or not len(tokens):
            return self
        matcher, new = self._matcher.deep_copy(), list(tokens)
        fits = max(new) < self.grammar.vocabulary and matcher.validate_tokens(new) == len(new)
        if matcher.is_error() or (fits and not matcher.consume_tokens(new)):
            raise self._failure(matcher)
        return State(self.grammar, matcher if fits else None)

    @cached_property
    def allowed(self) -> NDArray[np.uint8]:
        """Which tokens may come next, a bit each, the lowest first: (ceil(vocabulary / 8),); end tokens included.

        Every token where those so far do not match: only a draft has such a place, and it is rejected before.

        Raises:
            ArgumentError: no token can go on here, or finding out takes more than the limits of a step.
        """
        size = self.grammar.vocabulary
        if self._matcher is None:
            return np.full(-(-size // 8), 255, np.uint8)
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise self._failure(self._matcher)
        kept = mask[: -(-size // 8)].copy()
        if size % 8:
            kept[-1] &= (1 << size % 8) - 1  # the end that is no token of the model
        return kept

    @property
    def complete(self) -> bool:
        """Whether a text of the grammar ends here and none goes on, for a model without end tokens."""
        return self._matcher is not None and bool(self._matcher.is_accepting()) and not self.allowed.any()

    def _failure(self, matcher: Any) -> ArgumentError:
        said = short(matcher.get_error())
        if "NoExtension" in said:
            return ArgumentError(
                f"{self.grammar.argument} leads where no token of the tokenizer can go on. Pass a grammar whose texts "
                "end, and that the tokenizer can write."
            )
        return ArgumentError(f"{self.grammar.argument} is too complex to follow. llguidance says: {said}")


class CompiledGrammar:
    """A grammar for one vocabulary.

    Raises:
        ArgumentError: it allows nothing, or takes more than the limits.
    """

    def __init__(self, argument: str, matcher: Any, vocabulary: int, has_end: bool) -> None:
        self.argument, self.vocabulary = argument, vocabulary
        self.has_end = has_end  # whether a token of the model says that the text is complete
        self._banned: OrderedDict[bytes, NDArray[np.int64]] = OrderedDict()
        self.start = State(self, matcher)
        self.anywhere = State(self, None)  # outside of the grammar, where any token may come
        if not self.start.allowed.any():
            raise ArgumentError(f"{argument} allows only the empty text. Pass a grammar with something to write.")

    def banned(self, state: State) -> NDArray[np.int64]:
        """The tokens that must not come next. Within a string, say, they are the same at every token."""
        key = state.allowed.tobytes()
        tokens = self._banned.get(key)
        if tokens is None:
            bits = np.unpackbits(~state.allowed, bitorder="little", count=self.vocabulary)
            tokens = self._banned[key] = np.flatnonzero(bits.view(np.bool_))
            while len(self._banned) > _KEPT:
                self._banned.popitem(last=False)
        return tokens


class Completion:
    """Whether an output has completed its grammar, where the model has no end token to say so.

    It follows the output that it was asked about last, and goes back where another one differs.
    """

    def __init__(self, grammar: CompiledGrammar) -> None:
        self._grammar = grammar
        self._tokens: list[int] = []
        self._states = Memory()

    def __call__(self, generated: Sequence[int]) -> bool:
        """Whether nothing can follow the generated tokens.

        Raises:
            ArgumentError: they do not follow the grammar.
        """
        same = (one == other for one, other in zip(self._tokens, generated))
        known = sum(takewhile(bool, same))
        self._states.rewind(known)
        at, state = self._states.latest(self, known) or (0, self._grammar.start)
        state = state.after(generated[at:])
        self._tokens = list(generated)
        self._states.put(self, len(generated), state)
        if not state.matches:
            raise ArgumentError(
                f"{self._grammar.argument} does not allow the output that was chosen. A rule or a processor that acts "
                "later has put a token back; leave it out."
            )
        return state.complete
