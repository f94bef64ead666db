"""A request in the engine: a strategy that runs, what it waits for, and the handle that its owner holds."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PageKey, Sequence
from loquent.decoding.recording import Recording
from loquent.decoding.stopping import Reason
from loquent.decoding.task import Asks, Hypothesis, Read, Select, Strategy, Task
from loquent.decoding.trace import Event
from loquent.decoding.wants import WANTS, Block, LastRow, Verify, Want
from loquent.engine.choosing import Chooser
from loquent.errors import RequestCancelledError


@dataclass(eq=False, slots=True)
class Asked:
    """One thing that a strategy wants to know, and the answer."""

    request: Request
    want: Want
    sequence: Sequence
    number: int = 0  # of the read or selection, among the strategy's
    select: Select | None = None  # where it asks about rows that are there already
    parts: list[Any] | None = None  # of an answer that comes chunk by chunk
    answer: Any = None
    done: bool = False

    def settle(self, answer: Any) -> None:
        """Answer it."""
        self.answer, self.done = answer, True


@dataclass(eq=False, slots=True)
class PendingRead:
    """A read that the strategy waits for: how much of it the model has seen, and its answers."""

    request: Request
    number: int  # among the request's reads
    read: Read
    left: int  # how many tokens the model has yet to see
    asked: tuple[Asked, ...]
    rows: int  # how many of the last tokens' rows are wanted
    scored: int  # of how many of those the logits are
    layers: tuple[int, ...] = ()  # whose hidden states are
    fed: int = 0  # how many tokens the model has seen
    keys: list[PageKey] | None = None  # of the pages of a prompt that others may share
    waits_for: PendingRead | None = None  # another that fills pages which this one can share

    @property
    def first_row(self) -> int:
        """The first of the read's tokens whose row is wanted."""
        return len(self.read.tokens) - self.rows

    @property
    def done(self) -> bool:
        """Whether every want has its answer."""
        if len(self.asked) == 1:  # mostly
            return self.asked[0].done
        return all(asked.done for asked in self.asked)

    @property
    def answer(self) -> Any:
        """What the strategy is sent."""
        if len(self.asked) == 1 and type(self.read.want) is not tuple:  # mostly
            return self.asked[0].answer
        return tuple([asked.answer for asked in self.asked])

    @property
    def is_reusable(self) -> bool:
        """Whether it is for one row, as another that can take its place, and is no prompt that others may wait for."""
        return self.keys is None and isinstance(self.read.want, LastRow)

    def reuse(self, read: Read) -> PendingRead:
        """Wait for another read instead, as the next step of most requests does: a new one takes longer to make."""
        asked = self.asked[0]
        self.read, self.left, self.fed = read, len(read.tokens), 0
        asked.want = read.want  # type: ignore[assignment]  # a LastRow alone
        asked.sequence, asked.answer, asked.done = read.sequence, None, False
        return self

    def advance(self, count: int) -> None:
        """The model has seen `count` more tokens."""
        self.fed += count
        self.left -= count


@dataclass(eq=False)
class Request:
    """A running strategy with its task, its open sequences and its unanswered reads or selections."""

    task: Task
    most_bytes: int  # of KV memory that it may hold at once
    clear: Callable[[object, list[tuple[int, list[int]]]], None]  # zeroes pages, by group, of a sequence's home
    chooser: Chooser | None = None  # where the backend selects
    strategy: Strategy | None = None
    sequences: list[Sequence] = field(default_factory=list)
    reads: list[PendingRead] = field(default_factory=list)
    selections: list[Asked] = field(default_factory=list)
    recording: Recording | None = None  # where an output wants its rows
    arrival: int = 0  # its number, in the order of submission
    rounds: int = 0  # how often the strategy has asked
    evictions: int = 0  # how often its pages were needed elsewhere
    done: bool = False
    error: BaseException | None = None

    def start(self) -> None:
        """Run the strategy to its first reads."""
        decoding = self.task.decoding
        self.strategy = decoding.strategy(self.task)
        if decoding.source is not None:
            self.strategy = decoding.source(self.task, self.strategy)
        self._resume(None)

    def evict(self) -> None:
        """Give every page back; what its sequences hold is read again once it goes on."""
        self.evictions += 1
        for read in self.reads:
            read.keys = read.waits_for = None
        for sequence in self.sequences:
            sequence.evict()

    def answer(self) -> None:
        """Send the strategy the answers it waits for, when all of them are there, and take what it asks next."""
        answers = []
        for read in self.reads or self.selections:
            if not read.done:
                return
            answers.append(read.answer)
        if answers:
            self._resume(answers)

    def fail(self, error: BaseException) -> None:
        """End the request, and only it, with the reason why."""
        self.error = error
        try:
            for sequence in list(self.sequences):
                home, left, sequence.shadow = sequence.home, sequence.disown(), None  # which has its turn
                sequence.close()  # what it shared with the next one is that one's own now
                self.clear(home, left)
        finally:
            self.finish()

    @property
    def is_near(self) -> bool:
        """Whether the next step answers all of its reads."""
        return bool(self.reads) and all(read.left == 1 and not read.read.sequence.missing for read in self.reads)

    def expire(self) -> None:
        """End the request with what has been committed: its time is over."""
        self.task.rank(self.so_far("time"))
        self.finish()

    def so_far(self, reason: Reason) -> list[Hypothesis]:
        """Its results, the first of which holds what has been committed, if it ends now."""
        missing = [()] * (self.task.decoding.returned - 1)
        return [Hypothesis(output, reason) for output in (tuple(self.task.output), *missing)]

    def finish(self) -> None:
        """Close the strategy and give every page back."""
        self.done, self.reads, self.selections = True, [], []
        try:
            if self.strategy is not None:
                self.strategy.close()
        finally:
            for sequence in list(self.sequences):
                sequence.close()
            # They hold the engine, in circles where it and the model would wait for the collector.
            self.task.open, self.clear = _opened_too_late, _cleared_too_late

    def _resume(self, answers: list[Any] | None) -> None:
        if self.strategy is None:
            return
        try:
            asks = self.strategy.send(answers)  # type: ignore[arg-type]  # None starts it
            self.rounds += 1
            if len(asks) == len(self.reads) == 1 and _is_plain(asks[0]) and self.reads[0].is_reusable:  # mostly
                self.reads[0].reuse(asks[0])
            else:
                _check(asks)
                self._expect(asks)
        except StopIteration:
            self.finish()
        except Exception as error:  # a strategy's or a caller's criterion's failure is this request's alone
            self.fail(error)

    def _expect(self, asks: Items[Read | Select]) -> None:
        before, self.reads, self.selections = self.reads, [], []
        for number, ask in enumerate(asks):
            if isinstance(ask, Select):
                self.selections.append(Asked(self, ask.want, ask.sequence, number, ask))
            elif number < len(before) and _is_plain(ask) and before[number].is_reusable:
                self.reads.append(before[number].reuse(ask))
            else:
                self.reads.append(self._pending(number, ask))

    def _pending(self, number: int, read: Read) -> PendingRead:
        sequence, count = read.sequence, len(read.tokens)
        if isinstance(read.want, LastRow):  # mostly
            return PendingRead(self, number, read, count, (Asked(self, read.want, sequence, number),), 1, 1)
        wants = read.wants
        return PendingRead(
            *(self, number, read, count, tuple(Asked(self, want, sequence, number) for want in wants)),
            rows=max(want.rows(count) for want in wants),
            scored=max(want.scored(count) for want in wants),
            layers=tuple({layer: None for want in wants for layer in want.layers}),
        )


_LAST_ROWS = frozenset(want for want in WANTS if issubclass(want, LastRow))


def _opened_too_late(*_: object) -> Sequence:
    raise ValueError("a strategy has opened a sequence after its request had ended")


def _cleared_too_late(*_: object) -> None:
    raise ValueError("pages of a request that had ended were to be cleared")


def _check(asks: Asks) -> None:
    """Refuses what would never be answered or would lose pages; a strategy's author made a mistake then."""
    if not asks or len({type(ask) for ask in asks}) > 1:
        raise ValueError("a strategy must ask for one thing or more, either reads or selections")
    for ask in asks:
        if _is_plain(ask):  # mostly
            continue
        if isinstance(ask, Read):
            _check_read(ask)
        elif ask.sequence.closed:
            raise ValueError("a strategy selects behind a sequence that it had closed")
        elif not isinstance(ask.block, Block) or not isinstance(ask.want, LastRow | Verify):
            raise ValueError(f"a strategy cannot select {ask.want!r} from {type(ask.block).__name__}")
    if isinstance(asks[0], Read) and len(asks) > 1 and len({id(ask.sequence) for ask in asks}) < len(asks):
        raise ValueError("a strategy must read each sequence once at a time")


def _is_plain(ask: Read | Select) -> TypeGuard[Read]:
    """Whether it is a read for one row as it should be."""
    return type(ask) is Read and type(ask.want) in _LAST_ROWS and len(ask.tokens) > 0 and not ask.sequence.closed


def _check_read(read: Read) -> None:
    count = len(read.tokens)
    if read.sequence.closed:
        raise ValueError("a strategy has read a sequence that it had closed")
    if not count:
        raise ValueError("a strategy has read no tokens; a read needs one or more")
    for want in read.wants:
        if type(want) not in WANTS:
            known = ", ".join(known.__name__ for known in WANTS)
            raise ValueError(f"a strategy wants {want!r}; it can want {known}")
        if want.rows(count) > count:
            raise ValueError(f"a strategy wants {want!r} of a read of {count} tokens")


class Handle:
    """What the owner of a request holds: its new tokens as they come, its results, and the means to cancel it."""

    def __init__(self, request: Request, cancel: Callable[[Request], None]) -> None:
        self._request, self._cancel = request, cancel
        self._taken = self._heard = 0

    @property
    def done(self) -> bool:
        """Whether the request has ended, in whatever way."""
        return self._request.done

    @property
    def reason(self) -> str | None:
        """Why the output ended."""
        return self._request.task.reason

    @property
    def task(self) -> Task:
        """The request as its strategy sees it."""
        return self._request.task

    @property
    def prompt(self) -> NDArray[np.int64]:
        """What it continues, (n,)."""
        return self._request.task.prompt

    @property
    def events(self) -> list[Event]:
        """What the strategy has told of its way so far, where the request is traced."""
        return self._request.task.events

    @property
    def recording(self) -> Recording | None:
        """The rows that tokens were chosen from, where an output wants them."""
        return self._request.recording

    def new_events(self) -> list[Event]:
        """What the strategy has told since the last call."""
        known, self._heard = self._heard, len(self._request.task.events)
        return self._request.task.events[known:] if self._heard > known else []

    def new_tokens(self) -> list[int]:
        """The tokens committed since the last call; raises what made the request fail."""
        tokens, _, error = self.news()
        if error:
            raise error
        return tokens

    def news(self) -> tuple[list[int], bool, BaseException | None]:
        """The tokens committed since the last call, whether they are the last, and what made the request fail.

        Who holds the engine's `lock` has all of one moment, even where other threads step it.
        """
        tokens = self._request.task.output[self._taken :]
        self._taken += len(tokens)
        return tokens, self._request.done, self._request.error

    def result(self) -> list[Hypothesis]:
        """The hypotheses, best first; raises what made the request fail.

        Raises:
            RequestCancelledError: it was cancelled, or is not done.
        """
        if self._request.error:
            raise self._request.error
        if not self._request.task.ranked:
            raise RequestCancelledError("the request has no result: it was cancelled, or has not ended yet")
        return self._request.task.ranked

    def so_far(self) -> list[Hypothesis]:
        """The hypotheses, or as many of which the first holds what was committed before the request was cancelled."""
        return self._request.task.ranked or self._request.so_far("cancelled")

    def cancel(self) -> None:
        """End the request now and free what it holds; cancelling one that has ended does nothing."""
        if not self._request.done:
            self._cancel(self._request)
