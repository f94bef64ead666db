"""The views of a trace, and which of them a trace has something for; it draws nothing."""

from __future__ import annotations

from typing import Literal, get_args

from loquent.decoding.trace import Branched, Drafted, LayerChosen, Trace

View = Literal["beams", "probs", "draft", "layers"]
VIEWS: tuple[View, ...] = get_args(View)

NOTHING: dict[View, str] = {
    "beams": "No beams were searched.",
    "probs": "No token was chosen.",
    "draft": "Nothing was drafted.",
    "layers": "No layer was chosen.",
}


def has(trace: Trace, view: View) -> bool:
    """Whether there is something to draw."""
    needed = {"beams": Branched, "draft": Drafted, "layers": LayerChosen}.get(view)
    return bool(trace.of(needed) if needed else [event for event in trace.events if event.nodes])
