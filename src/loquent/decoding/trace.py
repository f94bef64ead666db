"""The trace: what a strategy weighed at each step and what became of it, as plain data; it decides and draws nothing.

A step chooses one or more tokens behind `step` generated ones. Hypotheses that are kept stand in *lanes*, numbered from
0 in the order in which the next step reads them; what extends one names its lane as `parent`. So a tree of beams is
drawn by going from step to step, and one-by-one decoding, which has the single lane 0, is the tree without branches.

A strategy notes events only where `task.note` is there:

    if task.note:
        task.note(Branched(step, nodes))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loquent.decoding.stopping import Reason

if TYPE_CHECKING:
    from loquent.decoding.task import Hypothesis

ALTERNATIVES = 5
"""How many tokens one-by-one decoding notes at each step, beside the chosen one."""

Fate = Literal["kept", "pruned", "finished", "rejected"]
"""What became of a node: it goes on; others were better; it ended a hypothesis; it was drafted, and does not stand."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A token that a step weighed behind one hypothesis."""

    token: int
    log_probability: float  # of the token behind its parent, after the rules; beams: as the strategy adds it up
    score: float  # of the hypothesis with this token: the sum of its log-probabilities, no length penalty
    fate: Fate
    parent: int = 0  # the lane of what it extends, among those that the step before kept; the first step extends 0
    lane: int | None = None  # its own among those that this step keeps; None where it is not kept
    reason: Reason | None = None  # why it finished
    bank: int | None = None  # constrained beams: how many tokens of the constraints it has met


@dataclass(frozen=True, kw_only=True)
class Draft(Node):
    """A drafted token: kept, finished, or rejected, as are those behind a rejected one.

    `log_probability` and `score` are the large model's; the tokens behind a rejected one are weighed behind it.
    """

    confidence: float = 1.0  # its probability in the draft


@dataclass(frozen=True, kw_only=True)
class Contrast(Node):
    """A candidate of contrastive search: `value` = (1 - alpha) * probability - alpha * penalty decides."""

    probability: float
    penalty: float  # the largest cosine of its hidden state with those of the context: how much it repeats
    value: float


@dataclass(frozen=True)
class Event:
    """What happened where the tokens behind `step` generated ones were chosen."""

    step: int

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All tokens that it tells of."""
        return ()


@dataclass(frozen=True)
class Chosen(Event):
    """One-by-one decoding: the token taken, and the most likely others, pruned, best first."""

    node: Node
    alternatives: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The chosen one first."""
        return (self.node, *self.alternatives)


@dataclass(frozen=True)
class Branched(Event):
    """Beams of all kinds: the candidates of all hypotheses, or of those of one group, best first.

    Lanes count on through the groups of diverse beams: group g of groups of n has the lanes g * n to g * n + n - 1.
    """

    candidates: tuple[Node, ...]
    group: int = 0

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The candidates."""
        return self.candidates


@dataclass(frozen=True)
class Drafted(Event):
    """A round of speculation: drafts for the tokens `step`, `step` + 1, ..., and the token behind those that stand."""

    drafts: tuple[Draft, ...]
    token: Node | None  # in place of the first rejected draft, or behind the last; None where an accepted one ended all
    source: str = "draft"  # who drafted: "assistant", "lookup", "early exit", ...

    @property
    def accepted(self) -> int:
        """How many drafts stand."""
        return sum(draft.fate != "rejected" for draft in self.drafts)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The drafts, and what follows."""
        return self.drafts if self.token is None else (*self.drafts, self.token)


@dataclass(frozen=True)
class Contrasted(Event):
    """Contrastive search: the candidates, the most probable first; one is kept or finished, the others are pruned."""

    candidates: tuple[Contrast, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The candidates."""
        return self.candidates


@dataclass(frozen=True)
class LayerChosen(Event):
    """DoLa: the early layer that the last one was contrasted with behind the hypothesis in `lane`, before its token.

    It comes before the event of the same step that tells which tokens were chosen.
    """

    layer: int
    divergences: tuple[tuple[int, float], ...]  # candidate layer -> D of `sources.dola`, in nats; () of one
    lane: int = 0


@dataclass(frozen=True)
class Trace:
    """All that a request's strategy told of its way, and what came of it."""

    prompt: tuple[int, ...]
    backend: str  # what ran the model
    strategy: str  # the name of its function, such as "beam_search"
    events: tuple[Event, ...]
    results: tuple[Hypothesis, ...]  # best first; their scores have the length penalty in them
    settings: Mapping[str, Any] = field(default_factory=dict)  # what was asked for: the config's fields that were set

    def of(self, *kinds: type[Event]) -> tuple[Event, ...]:
        """The events of some kinds."""
        return tuple(event for event in self.events if isinstance(event, kinds))
