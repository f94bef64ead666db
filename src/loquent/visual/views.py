"""The views of a trace, and which of them a trace has something for; it draws nothing."""

from __future__ import annotations

from typing import Literal, get_args

from loquent.decoding.trace import Branched, Drafted, LayerChosen, Trace

View = Literal["beams", "probs", "draft", "layers"]
VIEWS: tuple[View, ...] = get_args(View)

_NAMES = {"speculate": "Speculative decoding", "beam_sampling": "Beam-search sampling"}

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


def name_of(trace: Trace) -> str:
    """What a strategy is called, and the source of its scores where that is another than the model alone."""
    name = _NAMES.get(trace.strategy, trace.strategy.replace("_", " ").capitalize())
    if trace.strategy == "one_by_one":
        name = "Multinomial sampling" if trace.settings.get("do_sample") else "Greedy search"
    sources = [source for field, source in _SOURCES if trace.settings.get(field) is not None]
    return " with ".join([name, " and ".join(sources)] if sources else [name])


_SOURCES = (("dola_layers", "DoLa"), ("guidance_scale", "guidance"))
