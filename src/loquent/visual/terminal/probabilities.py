"""The probabilities of a result's tokens in the terminal: a heat map, and what else was likely at each place."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loquent.decoding.trace import Contrast, Node, Trace
from loquent.visual.folding import folded
from loquent.visual.places import Place, places_of, probability_of
from loquent.visual.shades import SHADES, percent, shade_number
from loquent.visual.terminal.canvas import FAINT, Canvas, bar, listing, title
from loquent.visual.texts import isolated
from loquent.visual.tree import grow
from loquent.visual.views import NOTHING

_PLACES = 36
_NARROW = 56


def probabilities(trace: Trace, canvas: Canvas) -> RenderableType:
    """Those of all results, one after another."""
    tree, parts = grow(trace), list[RenderableType]()
    for index in range(len(trace.results)):
        places = places_of(trace, tree, index)
        if not places:
            continue
        parts += [Text()] if parts else []
        parts.append(title(f"Probabilities of result {index + 1}" if len(trace.results) > 1 else "Probabilities"))
        parts += [_legend(), heat_map(places, canvas), Text()] if canvas.coloured else []
        parts.append(_table(places, canvas))
    return Group(*parts) if parts else Text(NOTHING["probs"])


def _legend() -> Text:
    legend = Text()
    for shade in SHADES:
        legend.append(f" {shade.name} ", f"#000000 on {shade.colour}").append(" ")
    return legend


def heat_map(places: list[Place], canvas: Canvas) -> Text:
    """The text, each token on the colour of its probability."""
    text = Text()
    for place in places:
        colour = SHADES[shade_number(place.probability)].colour
        text.append(isolated(canvas.texts.flowing(place.node.token)), f"#000000 on {colour}")
        if canvas.texts.breaks(place.node.token):
            text.append("\n")
    return text


def _table(places: list[Place], canvas: Canvas) -> Table:
    is_contrastive = any(isinstance(place.node, Contrast) for place in places)
    is_narrow = canvas.width < _NARROW
    columns = ["Step", "Token", "p", *([] if is_narrow else [""])]
    columns += ["Repeats", "Value"] if is_contrastive else []
    table = listing(*columns, "Others", right=("Step", "p", "Repeats", "Value"))
    first, missing, last = folded(places, canvas.limit(_PLACES))
    for place in first:
        table.add_row(*_cells(place, canvas, is_narrow, is_contrastive))
    if missing:
        table.add_row("⋮", Text(f"{missing} left out", FAINT))
    for place in last:
        table.add_row(*_cells(place, canvas, is_narrow, is_contrastive))
    return table


def _cells(place: Place, canvas: Canvas, is_narrow: bool, is_contrastive: bool) -> list[Text]:
    chance, node = place.probability, place.node
    style = SHADES[shade_number(chance)].colour if canvas.coloured else ""
    cells = [Text(str(place.step + 1), FAINT), canvas.token(node.token), Text(percent(chance))]
    cells += [] if is_narrow else [Text(f"{bar(chance):10}", style)]
    if is_contrastive:
        told = (node.penalty, node.value) if isinstance(node, Contrast) else ()
        cells += [Text(f"{number:.3f}") for number in told] or [Text(), Text()]
    return [*cells, _others(place.others, canvas)]


def _others(others: tuple[Node, ...], canvas: Canvas) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for node in others:
        text.append("   " if text else "").append(isolated(canvas.texts.token(node.token)))
        text.append(f" {percent(probability_of(node))}", FAINT)
        if isinstance(node, Contrast):
            text.append(f" value {node.value:.3f}", FAINT)
        if node.fate == "rejected":
            text.append(" drafted", FAINT)
    return text
