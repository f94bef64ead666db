"""How sources stand between a strategy and the model: the strategy asks as it would without them.

What it wants to know of logits is read as whole rows, which each source changes in turn, and selected from.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from loquent.decoding.sources.base import Place, Source
from loquent.decoding.task import Asks, Read, Select, Strategy, Task
from loquent.decoding.wants import Block, LastRow, Rows, Verify, Want


@dataclass(eq=False)
class _Changed:
    """A read of the strategy's, what is read in its place, and the answers."""

    read: Read
    lane: int
    length: int  # how many tokens its sequence has behind it
    rows: int  # how many of its last rows are wanted as logits
    reads: list[list[Read]] = field(default_factory=list)  # the one in its place, then each source's
    block: Block | None = None
    answers: list[Any] = field(default_factory=list)  # to its wants that are not about logits


def scored_by(sources: Items[Source], task: Task, strategy: Strategy) -> Strategy:
    """The strategy, with its rows changed by each source in turn. Other models' rows stay as they are."""
    answers: list[Any] | None = None
    try:
        while True:
            try:
                asks = strategy.send(answers)  # type: ignore[arg-type]  # None starts it
            except StopIteration:
                return
            answers = yield from _answers(sources, task, asks)
    finally:
        strategy.close()


def _answers(sources: Items[Source], task: Task, asks: Asks) -> Generator[Asks, list[Any], list[Any]]:
    """The answers to what a strategy asks."""
    if not all(isinstance(ask, Read) for ask in asks):
        return (yield asks)  # from rows that have been changed already
    changed = [_changed(sources, task, lane, ask) for lane, ask in enumerate(asks) if isinstance(ask, Read)]
    came = iter((yield [read for one in changed for reads in one.reads for read in reads]))
    for one in changed:
        _combine(sources, task, one, [[next(came) for _ in reads] for reads in one.reads])
    selects = [select for one in changed for select in _selects(one)]
    selected: Iterator[Any] = iter((yield selects) if selects else ())
    return [_answer(one, selected) for one in changed]


def _changed(sources: Items[Source], task: Task, lane: int, read: Read) -> _Changed:
    rows = max((want.scored(len(read.tokens)) for want in read.wants if _is_changed(want)), default=0)
    length = len(read.sequence) + len(read.tokens)
    if not rows or read.sequence.home in task.decoding.readers:
        return _Changed(read, lane, length, 0, [[read]])
    asked = [layer for want in read.wants if isinstance(want, Rows) for layer in want.lenses]
    lenses = tuple(dict.fromkeys([*asked, *[layer for source in sources for layer in source.lenses]]))
    others = [want for want in read.wants if not _is_changed(want)]
    own = Read(read.sequence, read.tokens, (Rows(rows, lenses), *others))
    return _Changed(read, lane, length, rows, [[own], *[source.reads(task, read, rows) for source in sources]])


def _is_changed(want: Want) -> bool:
    return isinstance(want, LastRow | Verify | Rows)


def _combine(sources: Items[Source], task: Task, one: _Changed, came: list[list[Any]]) -> None:
    if not one.rows:
        one.answers = came[0]
        return
    [[block, *one.answers]] = came[0]
    place = Place(one.lane, one.length - one.rows + 1)
    for source, beside in zip(sources, came[1:]):
        block.logits = source.logits(task, place, block, beside)
    one.block = block


def _selects(one: _Changed) -> Iterator[Select]:
    for want in one.read.wants:
        if one.block is not None and isinstance(want, LastRow | Verify):
            yield Select(one.read.sequence, one.block, want)


def _answer(one: _Changed, selected: Iterator[Any]) -> Any:
    """What the strategy is sent for its read."""
    if one.block is None:
        return one.answers[0]
    others, answers = iter(one.answers), []
    for want in one.read.wants:
        if isinstance(want, Rows):
            first, block = one.rows - want.count, one.block
            lenses = {layer: block.lenses[layer][first:, :] for layer in want.lenses}
            answers.append(Block(block.logits[first:, :], lenses))
        else:
            answers.append(next(selected if _is_changed(want) else others))
    return tuple(answers) if isinstance(one.read.want, tuple) else answers[0]
