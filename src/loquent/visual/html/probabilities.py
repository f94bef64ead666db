"""Probabilities as a heat map: each token on the colour of its own, the alternatives where it is pointed at."""

from __future__ import annotations

from loquent.decoding.trace import Contrast, Node, Trace
from loquent.visual.html.markup import Markup, element, joined, word
from loquent.visual.places import Place, places_of, probability_of
from loquent.visual.shades import SHADES, percent, shade_number
from loquent.visual.texts import TokenTexts
from loquent.visual.tree import grow

_ORIGINS = {"draft": "from the draft", "instead": "the model's own, behind the drafts"}


def probabilities(trace: Trace, texts: TokenTexts) -> Markup:
    """Those of all results, one after another."""
    tree = grow(trace)
    legend = [element("span", shade.name, class_=f"key p{number}") for number, shade in enumerate(SHADES)]
    parts = [
        element("h2", "Probabilities"),
        element("p", *legend, " Point at a token, or go to it with Tab, for what else was likely.", class_="legend"),
    ]
    for index, _ in enumerate(trace.results):
        places = places_of(trace, tree, index)
        parts += [element("h3", f"Result {index + 1}")] if len(trace.results) > 1 else []
        parts.append(element("div", *(_token(place, texts) for place in places), class_="heat"))
    return element("div", *parts, class_="view")


def _token(place: Place, texts: TokenTexts) -> Markup:
    token = place.node.token
    shown = element(
        "span",
        word(texts.flowing(token)),
        _tip(place, texts),
        class_=f"t p{shade_number(place.probability)}",
        tabindex=0,
    )
    return joined(shown, Markup("<br>")) if texts.breaks(token) else shown


def _tip(place: Place, texts: TokenTexts) -> Markup:
    """The token and its alternatives, as a list with bars."""
    facts = [f"step {place.step + 1}", f"token {place.node.token}", f"log p {place.node.log_probability:.3f}"]
    facts += [_ORIGINS[place.origin]] if place.origin in _ORIGINS else []
    facts += [f"layer {place.layer.layer}"] if place.layer else []
    rows = [_row(node, texts, node is place.node) for node in (place.node, *place.others)]
    return element("span", element("span", ", ".join(facts), class_="facts"), *rows, class_="tip", role="tooltip")


def _row(node: Node, texts: TokenTexts, is_chosen: bool) -> Markup:
    chance = probability_of(node)
    told = percent(chance)
    if isinstance(node, Contrast):
        told += f", repeats {node.penalty:.3f}, value {node.value:.3f}"
    told += " drafted" if node.fate == "rejected" else ""
    return element(
        "span",
        word(texts.token(node.token), "token"),
        element("span", element("i", style=f"width:{chance:.1%}"), class_="bar"),
        element("span", told, class_="number"),
        class_="row chosen" if is_chosen else "row",
    )
