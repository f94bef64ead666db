"""A trace in the terminal, as renderables of rich: as many colours as there are, and readable without any."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import RenderableType

from loquent.decoding.trace import Trace
from loquent.visual.terminal.beams import beams
from loquent.visual.terminal.canvas import Canvas
from loquent.visual.terminal.drafts import drafts
from loquent.visual.terminal.layers import layers
from loquent.visual.terminal.probabilities import probabilities
from loquent.visual.views import View

__all__ = ["Canvas", "draw"]

_DRAWN: dict[View, Callable[[Trace, Canvas], RenderableType]] = {
    "beams": beams,
    "probs": probabilities,
    "draft": drafts,
    "layers": layers,
}


def draw(view: View, trace: Trace, canvas: Canvas) -> RenderableType:
    """A view of a trace; where the trace has nothing for it, a line that says so."""
    return _DRAWN[view](trace, canvas)
