"""DoLa in the terminal: for each token the layer that was chosen, and how far each candidate was from the last."""

from __future__ import annotations

from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loquent.decoding.trace import LayerChosen, Trace
from loquent.visual.folding import folded
from loquent.visual.layers import candidate_layers, chosen_layers
from loquent.visual.places import Place, places_of
from loquent.visual.shades import percent
from loquent.visual.terminal.canvas import FAINT, Canvas, bar, listing, title
from loquent.visual.tree import grow
from loquent.visual.views import NOTHING

_PLACES = 36
_LEVELS = "▁▂▃▄▅▆▇█"


def layers(trace: Trace, canvas: Canvas) -> RenderableType:
    """The layers of the best result's tokens."""
    places = [place for place in places_of(trace, grow(trace), 0) if place.layer] if trace.results else []
    if not places:
        return Text(NOTHING["layers"])
    candidates = candidate_layers(places)
    note = (
        "The last layer is contrasted with the candidate that diverges most from it (in nats). "
        f"Candidates: {', '.join(map(str, candidates))}."
        if len(candidates) > 1
        else f"The last layer is contrasted with layer {candidates[0]}, the only candidate."
    )
    return Group(
        title("Layers"), Text(note, FAINT), _table(places, candidates, canvas), Text(), _counts(places, canvas)
    )


def _table(places: list[Place], candidates: list[int], canvas: Canvas) -> Table:
    few = len(candidates) * 9 <= canvas.width - 40
    names = [f"layer {layer}" for layer in candidates] if few else ["Divergences"]
    columns = ["Step", "Token", "p", "Layer", *names]
    table = listing(*columns, right=("Step", "p", "Layer", *(names if few else ())))
    first, missing, last = folded(places, canvas.limit(_PLACES))
    for place in first:
        table.add_row(*_cells(place, candidates, canvas, few))
    if missing:
        table.add_row("⋮", Text(f"{missing} left out", FAINT))
    for place in last:
        table.add_row(*_cells(place, candidates, canvas, few))
    return table


def _cells(place: Place, candidates: list[int], canvas: Canvas, few: bool) -> list[Text]:
    event = place.layer
    assert event is not None
    cells = [Text(str(place.step + 1), FAINT), canvas.token(place.node.token), Text(percent(place.probability))]
    return [*cells, Text(str(event.layer), "bold cyan"), *(_numbers if few else _levels)(event, candidates)]


def _numbers(event: LayerChosen, candidates: list[int]) -> list[Text]:
    told = dict(event.divergences)
    return [
        Text(f"{told[layer]:.4f}" if layer in told else "", "bold cyan" if layer == event.layer else FAINT)
        for layer in candidates
    ]


def _levels(event: LayerChosen, candidates: list[int]) -> list[Text]:
    told = dict(event.divergences)
    most = max(told.values(), default=0.0) or 1.0
    text = Text(no_wrap=True)
    for layer in candidates:
        level = round(max(told.get(layer, 0.0), 0.0) / most * (len(_LEVELS) - 1))
        text.append(_LEVELS[level], "bold cyan" if layer == event.layer else FAINT)
    return [text]


def _counts(places: list[Place], canvas: Canvas) -> Table:
    counts: Counter[int] = chosen_layers(places)
    table, most = listing("Layer", "Chosen", "", right=("Layer", "Chosen")), max(counts.values())
    for layer in sorted(counts):
        table.add_row(str(layer), str(counts[layer]), Text(bar(counts[layer] / most, 20), "cyan"))
    return table
