"""The places of a result: for each of its tokens what else was weighed there; it draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loquent.decoding.trace import Chosen, Contrasted, Drafted, Event, LayerChosen, Node, Trace
from loquent.visual.tree import Branch, Tree

Origin = Literal["model", "draft", "instead"]
"""Who put a token there: the model; a draft that stands; the model, in place of a fallen draft or behind the last."""


@dataclass(frozen=True)
class Place:
    """A token of a result."""

    step: int
    node: Node
    others: tuple[Node, ...] = ()  # what else was weighed behind the same text, the most likely first
    layer: LayerChosen | None = None  # DoLa's choice there
    origin: Origin = "model"

    @property
    def probability(self) -> float:
        """Of the token behind those before it, after the rules."""
        return probability_of(self.node)


def probability_of(node: Node) -> float:
    """The probability of a token, (0, 1)."""
    return min(math.exp(node.log_probability), 1.0)


def places_of(trace: Trace, tree: Tree, index: int) -> list[Place]:
    """The places of result `index`, as far as the trace tells of them."""
    layers = {(event.step, event.lane): event for event in trace.events if isinstance(event, LayerChosen)}
    if tree.steps:
        leaf = tree.leaves[index]
        return [_on_tree(branch, tree, layers) for branch in leaf.way()] if leaf else []
    found: dict[int, Place] = {}
    for event in trace.events:
        for place in _in_line(event):
            layer = layers.get((place.step, 0))
            found[place.step] = Place(place.step, place.node, place.others, layer, place.origin)
    return [found[step] for step in sorted(found)]


def _on_tree(branch: Branch, tree: Tree, layers: dict[tuple[int, int], LayerChosen]) -> Place:
    siblings = branch.parent.children if branch.parent else tree.roots
    others = [each.node for each in siblings if each is not branch and each.group == branch.group]
    lane = branch.parent.node.lane if branch.parent else 0
    return Place(branch.step, branch.node, _sorted(others), layers.get((branch.step, lane or 0)))


def _in_line(event: Event) -> list[Place]:
    if isinstance(event, Chosen):
        return [Place(event.step, event.node, _sorted(event.alternatives))]
    if isinstance(event, Contrasted):
        kept = [node for node in event.candidates if node.fate in ("kept", "finished")]
        return [
            Place(event.step, node, tuple(other for other in event.candidates if other is not node)) for node in kept
        ]
    if isinstance(event, Drafted):
        standing = event.drafts[: event.accepted]
        places = [Place(event.step + offset, draft, origin="draft") for offset, draft in enumerate(standing)]
        if event.token is not None:
            fallen = event.drafts[event.accepted : event.accepted + 1]
            places.append(Place(event.step + len(standing), event.token, tuple(fallen), origin="instead"))
        return places
    return []


def _sorted(nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda node: -node.log_probability))
