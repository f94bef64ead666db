"""How sources stand between a strategy and the model: the strategy asks as it would without them.

What it wants to know of logits is read as whole rows, which each source changes in turn, and selected from.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from typing import Any

from loquent.cache import Sequence
from loquent.decoding.sources.base import Part, Source
from loquent.decoding.task import Asks, Read, Select, Strategy, Task
from loquent.decoding.trace import LayerChosen
from loquent.decoding.wants import Block, LastRow, Rows, Verify, Want

Answers = Generator[Asks, list[Any], list[Any]]


def scored_by(sources: Items[Source], task: Task, strategy: Strategy) -> Strategy:
    """The strategy, with its rows changed by each source in turn. Other models' rows stay as they are."""
    scoring, answers = _Scoring(sources, task), None
    try:
        while True:
            try:
                asks = strategy.send(answers)  # type: ignore[arg-type]  # None starts it
            except StopIteration:
                return
            answers = yield from scoring.answers(asks)
    finally:
        strategy.close()


@dataclass(eq=False)
class _Changed:
    """A read of the strategy's, what is read in its place, and what came of it."""

    read: Read
    rows: int  # how many of its last rows are wanted as logits
    reads: list[list[Read]]  # the one in its place, then each source's
    block: Block | None = None
    others: list[Any] = field(default_factory=list)  # the answers to its wants that are not about logits

    def selects(self) -> Iterator[Select]:
        """What is selected to answer its wants."""
        for want in self.read.wants:
            if self.block is not None and isinstance(want, LastRow | Verify):
                yield Select(self.read.sequence, self.block, want)

    def answer(self, selected: Iterator[Any]) -> Any:
        """What the strategy is sent."""
        if self.block is None:
            return self.others[0]
        others, answers = iter(self.others), []
        for want in self.read.wants:
            if isinstance(want, Rows):
                answers.append(self.block.last(want.count))
            else:
                answers.append(next(selected if _is_of_logits(want) else others))
        return tuple(answers) if isinstance(self.read.want, tuple) else answers[0]


class _Scoring:
    """What the sources of one request make of what its strategy asks."""

    def __init__(self, sources: Items[Source], task: Task) -> None:
        self._sources, self._task = sources, task
        self._lenses = tuple(dict.fromkeys([layer for source in sources for layer in source.lenses]))
        self._read: list[Sequence] = []  # by the strategy's last reads
        self._untold: list[tuple[Sequence, list[LayerChosen]]] = []  # events of rows that have not been used yet

    def answers(self, asks: Asks) -> Answers:
        """The answers to what the strategy asks."""
        changed = [self._changed(ask) for ask in asks if isinstance(ask, Read)]
        if not changed:
            self._tell([ask.sequence for ask in asks])
            return (yield asks)  # from rows that have been changed already
        self._read, self._untold = [one.read.sequence for one in changed], []
        came = iter((yield [read for one in changed for reads in one.reads for read in reads]))
        for one in changed:
            self._combine(one, [[next(came) for _ in reads] for reads in one.reads])
        selects = [select for one in changed for select in one.selects()]
        self._tell([select.sequence for select in selects])
        selected: Iterator[Any] = iter((yield selects) if selects else ())
        return [one.answer(selected) for one in changed]

    def _changed(self, read: Read) -> _Changed:
        rows = max((want.scored(len(read.tokens)) for want in read.wants if _is_of_logits(want)), default=0)
        if not rows or read.sequence.home in self._task.decoding.readers:
            return _Changed(read, 0, [[read]])
        asked = [layer for want in read.wants if isinstance(want, Rows) for layer in want.lenses]
        others = [want for want in read.wants if not _is_of_logits(want)]
        wants = Rows(rows, tuple(dict.fromkeys([*asked, *self._lenses]))), *others
        own = Read(read.sequence, read.tokens, wants)
        return _Changed(read, rows, [[own], *[source.reads(self._task, read, rows) for source in self._sources]])

    def _combine(self, one: _Changed, came: list[list[Any]]) -> None:
        if not one.rows:
            one.others = came[0]
            return
        [[block, *one.others]] = came[0]
        one.block, sequence = Block(block.logits, block.lenses, raw=block.logits), one.read.sequence
        step, events = 0, None
        if self._task.note:
            step, events = self._task.context(sequence, len(sequence) - one.rows + 1).generated, list[LayerChosen]()
            self._untold.append((sequence, events))
        for source, beside in zip(self._sources, came[1:]):
            one.block = source.change(Part(one.block, beside, step, events))

    def _tell(self, used: Items[Sequence]) -> None:
        """Note what there is to tell of the rows that are used now; lanes count the sequences that are still open."""
        if not self._task.note or not self._untold:
            return
        lanes = {sequence: lane for lane, sequence in enumerate(one for one in self._read if not one.closed)}
        for sequence, events in self._untold:
            if sequence in used:
                for event in events:
                    self._task.note(replace(event, lane=lanes[sequence]))
        self._untold = [(sequence, events) for sequence, events in self._untold if sequence not in used]


def _is_of_logits(want: Want) -> bool:
    return isinstance(want, LastRow | Verify | Rows)
