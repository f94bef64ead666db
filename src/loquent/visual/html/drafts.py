"""Speculation round by round: the drafts that stood and fell, and what came in their place."""

from __future__ import annotations

from loquent.decoding.trace import Draft, Drafted, Node, Trace
from loquent.visual.html.markup import Markup, element, row, table, word
from loquent.visual.places import probability_of
from loquent.visual.rounds import rounds_of
from loquent.visual.shades import percent
from loquent.visual.texts import TokenTexts

_KEYS = (("✓ stands", "accepted"), ("✗ falls", "rejected"), ("→ the model's own", "own"))


def drafts(trace: Trace, texts: TokenTexts) -> Markup:
    """All rounds."""
    rounds = rounds_of(trace)
    legend = [element("span", name, class_=f"draft {kind}") for name, kind in _KEYS]
    rows = [_round(event, texts) for event in rounds.events]
    return element(
        "div",
        element("h2", "Drafts"),
        element("p", rounds.summary),
        element("p", *legend, " Point at a token for its probabilities.", class_="legend"),
        table(("Step", "Stand", "Tokens"), rows, "rounds"),
        class_="view",
    )


def _round(event: Drafted, texts: TokenTexts) -> Markup:
    chips = [_chip(draft, "rejected" if draft.fate == "rejected" else "accepted", texts) for draft in event.drafts]
    if event.token is not None:
        chips.append(_chip(event.token, "own", texts))
    return row(str(event.step + 1), f"{event.accepted}/{len(event.drafts)}", element("span", *chips))


def _chip(node: Node, kind: str, texts: TokenTexts) -> Markup:
    told = f"model: {percent(probability_of(node))}"
    if isinstance(node, Draft):
        told = f"draft: {percent(node.confidence)}, {told}"
    mark = {"accepted": "✓", "rejected": "✗", "own": "→"}[kind]
    return element("span", mark, word(texts.token(node.token)), class_=f"draft {kind}", title=told)
