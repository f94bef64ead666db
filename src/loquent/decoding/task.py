"""What a strategy works with: its prompt, sequences to read with, where it reports; no models, no other requests."""

from __future__ import annotations

from collections.abc import Callable, Generator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PLAIN, Sequence, StoreKind
from loquent.decoding.recording import Recorded
from loquent.decoding.rules import Context, Rule
from loquent.decoding.stopping import Reason, Stopping
from loquent.decoding.trace import Event
from loquent.decoding.wants import Block, LastRow, Verify, Want


@dataclass(eq=False, slots=True)
class Read:
    """Read `tokens` behind what `sequence` holds, and answer `want` from the rows that this gives.

    The answer to several wants is a tuple of theirs.
    """

    sequence: Sequence
    tokens: Items[int] | NDArray[np.int64]  # (n,), n >= 1
    want: Want | tuple[Want, ...]

    @property
    def wants(self) -> tuple[Want, ...]:
        """All of them."""
        return self.want if isinstance(self.want, tuple) else (self.want,)


@dataclass(eq=False, slots=True)
class Select:
    """Answer `want` from rows that an earlier read gave, without reading anything; rules act on them now.

    The rows are those behind the last tokens that `sequence` holds now.
    """

    sequence: Sequence
    block: Block
    want: LastRow | Verify
    # Different tokens, and what is added to their scores before rules act; log-probabilities where the want is of such.
    bias: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class Hypothesis:
    """A finished sequence: its generated tokens, a score where the strategy ranks by one, and why it ended."""

    tokens: tuple[int, ...]
    reason: Reason
    score: float | None = None


Asks = Items[Read] | Items[Select]

Strategy = Generator[Asks, list[Any], None]
"""Yields reads, or selections, is sent their answers in the same order, and reports to its task."""


@dataclass(frozen=True, eq=False)
class Decoding:
    """Everything that one request asks for, resolved and checked: what `decoding.arguments` makes of arguments."""

    strategy: Callable[[Task], Strategy]
    stopping: Stopping
    rules: tuple[Rule, ...] = ()
    sampled: bool = False
    seed: int = 0
    returned: int = 1  # hypotheses
    branches: int = 1  # the most sequences that are live at once
    own_tokens: int = 0  # how many tokens at most a live sequence does not share with the longest; 0: all that are new
    source: Callable[[Task, Strategy], Strategy] | None = None  # where scores come from, if not from the model alone
    healed: int = 0  # how many tokens at the beginning of the output are the prompt's last, made again
    shadow: int = 0  # how many tokens the prompt of each sequence's shadow has; 0: sequences have none
    store: StoreKind = PLAIN  # how its keys and values are kept
    readers: tuple[Any, ...] = ()  # further models that it reads with, as the engine opened them
    home: Any = None  # the reader that keeps them so, as the engine opened it; None: the engine's own, plain one
    traced: bool = False  # whether the strategy tells of its way
    recorded: frozenset[Recorded] = frozenset()  # what is kept of the rows that tokens are chosen from
    deadline: float | None = None  # the `time.monotonic()` at which it ends with what is there, be it nothing
    context: int | None = None  # slide over this many positions where more are needed; None: never slide


@dataclass(eq=False)
class Task:
    """A request as its strategy sees it."""

    prompt: NDArray[np.int64]  # (n,), n >= 1
    decoding: Decoding
    # A new, empty sequence of the model, or of another `reader`; closed with the request at the latest. `prompt` is how
    # long what it starts with is, if that is not the request's own prompt.
    open: Callable[..., Sequence]
    note: Callable[[Event], None] | None = None  # takes what a strategy tells of its way, where it is `traced`
    events: list[Event] = field(default_factory=list)  # what it has told
    company: int = 1  # how many requests run: what a strategy may save work by, and nothing that it answers
    output: list[int] = field(default_factory=list)  # what has been committed
    reason: Reason | None = None  # why the output ended
    ranked: list[Hypothesis] = field(default_factory=list)
    _text: NDArray[np.int64] = field(init=False)  # prompt and output as far as `_written`, and room for more
    _written: int = field(init=False)

    def __post_init__(self) -> None:
        self._text, self._written = self.prompt, len(self.prompt)
        if self.decoding.traced:
            self.note = self.events.append

    @property
    def position(self) -> int:
        """Where the next token comes: how many there are before it."""
        return len(self.prompt) + len(self.output)

    def context(self, sequence: Sequence, length: int | None = None) -> Context:
        """What rules may look at behind the first `length` tokens that a sequence holds or reads now; None: all."""
        decoding = self.decoding
        if decoding.context:
            tokens = self.text()  # a sequence that slides has lost its beginning
        else:
            tokens = sequence.text if length is None else sequence.text[:length]
        return Context(tokens, len(self.prompt) + decoding.healed, decoding.seed, sequence.memory)

    def text(self) -> NDArray[np.int64]:
        """The prompt and what has been committed, (length,); a view that is right until the next commit."""
        length = self.position
        if length > len(self._text):
            self._text = np.concatenate([self._text[: self._written], np.zeros(length, np.int64)])
        if length > self._written:
            self._text[self._written : length] = self.output[self._written - len(self.prompt) :]
            self._written = length
        return self._text[:length]

    def commit(self, tokens: Items[int]) -> bool:
        """These tokens follow, for good: streamed at once, and cut behind one that ends the output.

        Returns whether the output has ended; the strategy then returns.
        """
        for token in tokens:
            self.output.append(token)
            self.reason = self.ends(self.output)
            if self.reason:
                self.rank([Hypothesis(tuple(self.output), self.reason)])
                return True
        return False

    def ends(self, generated: Items[int]) -> Reason | None:
        """Why a sequence of the prompt and `generated` would end behind its last token, if it would."""
        return self.decoding.stopping.reason(self.prompt, generated)

    def settle(self, tokens: Items[int]) -> None:
        """The output begins with these tokens whatever comes: they are streamed, and nothing ends."""
        self.output = list(tokens)

    def rank(self, hypotheses: Items[Hypothesis]) -> None:
        """The results, best first."""
        self.ranked = list(hypotheses)
        self.reason = hypotheses[0].reason
        self.output = list(hypotheses[0].tokens)
