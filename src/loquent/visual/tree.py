"""The tree of a beam search, from its trace: who extends whom, and which branches became results; it draws nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import Branched, Node, Trace


@dataclass(eq=False)
class Branch:
    """A candidate token, and what was weighed behind it."""

    node: Node
    step: int
    group: int
    parent: Branch | None
    children: list[Branch] = field(default_factory=list)  # the best first
    ranks: list[int] = field(default_factory=list)  # the results that go through it, from 0

    @property
    def stands(self) -> bool:
        """Whether it was chosen: it went on, or ended a hypothesis."""
        return self.node.fate in ("kept", "finished")

    def way(self, most: int | None = None) -> list[Branch]:
        """From the first token, or for the `most` last ones, to this one."""
        found: list[Branch] = []
        branch: Branch | None = self
        while branch is not None and len(found) != most:
            found.append(branch)
            branch = branch.parent
        return found[::-1]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Those of the hypothesis that ends with it."""
        return tuple(branch.node.token for branch in self.way())


@dataclass(eq=False)
class Tree:
    """All candidates of a search.

    Attributes:
        steps: for each step its candidates: group by group, those of one parent together in the parents' order, the
            best first. Drawn in this order, no two branches cross.
        leaves: for each result the branch that it ends with, None where the trace does not tell of it.
        groups: how many groups of beams there are.
    """

    steps: list[list[Branch]]
    leaves: list[Branch | None]
    groups: int = 1

    @property
    def roots(self) -> list[Branch]:
        """The candidates for the first token."""
        return self.steps[0] if self.steps else []


def grow(trace: Trace) -> Tree:
    """The tree that a trace tells of; one without steps where it tells of no beams."""
    events: dict[int, list[Branched]] = defaultdict(list)
    for event in trace.events:
        if isinstance(event, Branched):
            events[event.step].append(event)
    steps: list[list[Branch]] = []
    lanes: dict[int, Branch] = {}
    for step in sorted(events):
        steps.append(list(_step(events[step], lanes)))
        lanes = {branch.node.lane: branch for branch in steps[-1] if branch.node.lane is not None}
    penalty = length_penalty(trace)
    leaves = [_leaf(steps, result, penalty) for result in trace.results]
    for rank, leaf in enumerate(leaves):
        for branch in leaf.way() if leaf else []:
            branch.ranks.append(rank)
    groups = {branch.group for row in steps for branch in row}
    return Tree(steps, leaves, len(groups) or 1)


def length_penalty(trace: Trace) -> float:
    """What hypotheses were ranked with."""
    return float(trace.settings.get("length_penalty", 1.0))


def _step(events: Sequence[Branched], lanes: dict[int, Branch]) -> Iterator[Branch]:
    """The candidates of a step in the order of drawing; `lanes` are what they extend, in that order too."""
    made = [
        Branch(node, event.step, event.group, lanes.get(node.parent)) for event in events for node in event.candidates
    ]
    made.sort(key=lambda branch: (branch.group, -branch.node.score))
    for branch in made:
        if branch.parent:
            branch.parent.children.append(branch)
    if not lanes:
        yield from made
    for parent in lanes.values():
        yield from parent.children


def _leaf(steps: Sequence[Sequence[Branch]], result: Hypothesis, penalty: float) -> Branch | None:
    """Where a result ended; groups of beams may have found it several times, with scores of their own."""
    if not 0 < len(result.tokens) <= len(steps):
        return None
    last = steps[len(result.tokens) - 1]
    ended = [branch for branch in last if branch.node.token == result.tokens[-1] and branch.tokens == result.tokens]
    total = (result.score or 0.0) * len(result.tokens) ** penalty
    return min(ended, key=lambda branch: (not branch.stands, abs(branch.node.score - total)), default=None)
