"""DoLa as a grid: a column for each token, a row for each candidate layer, the darker the farther from the last."""

from __future__ import annotations

from loquent.decoding.trace import Trace
from loquent.visual.html.markup import Markup, element, word
from loquent.visual.layers import candidate_layers, chosen_layers
from loquent.visual.places import Place, places_of
from loquent.visual.texts import TokenTexts
from loquent.visual.tree import grow


def layers(trace: Trace, texts: TokenTexts) -> Markup:
    """The layers of the best result's tokens."""
    places = [place for place in places_of(trace, grow(trace), 0) if place.layer] if trace.results else []
    candidates, counts = candidate_layers(places), chosen_layers(places)
    head = element(
        "tr",
        element("th", "Layer"),
        element("th", "Chosen"),
        *(element("th", word(texts.token(place.node.token)), class_="token") for place in places),
    )
    rows = [
        element(
            "tr",
            element("th", str(layer)),
            element("th", f"{counts[layer]}×"),
            *(_cell(place, layer) for place in places),
        )
        for layer in reversed(candidates)
    ]
    note = (
        "For each token of the best result: the divergence of each candidate layer from the last one, in nats, darker "
        "where it is larger beside the others; the outlined one was chosen."
    )
    return element(
        "div",
        element("h2", "Layers"),
        element("p", note, class_="legend"),
        element(
            "div",
            element("table", element("thead", head), element("tbody", *rows), class_="layers"),
            class_="scroll",
            tabindex=0,
            role="region",
            aria_label="Layers",
        ),
        class_="view",
    )


def _cell(place: Place, layer: int) -> Markup:
    event = place.layer
    assert event is not None
    told = dict(event.divergences)
    most = max(told.values(), default=0.0) or 1.0
    share = max(told.get(layer, 0.0), 0.0) / most
    is_chosen = layer == event.layer
    number = f"{told[layer]:.4f}" if layer in told else "●" if is_chosen else ""
    return element(
        "td", number, class_="chosen" if is_chosen else None, style=f"--share:{share * 70:.0f}%" if told else None
    )
