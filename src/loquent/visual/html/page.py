"""The page: a head with its style, what was asked for, and every view that a trace has something for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources

from loquent.decoding.trace import Trace
from loquent.visual.html.beams import beams
from loquent.visual.html.drafts import drafts
from loquent.visual.html.layers import layers
from loquent.visual.html.markup import Markup, element, row
from loquent.visual.html.probabilities import probabilities
from loquent.visual.texts import TokenTexts, printable
from loquent.visual.views import VIEWS, View, has, name_of

_DRAWN: dict[View, Callable[[Trace, TokenTexts], Markup]] = {
    "beams": beams,
    "probs": probabilities,
    "draft": drafts,
    "layers": layers,
}
# Nothing on the page may load or run anything, whatever a model wrote.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(traces: Sequence[Trace], texts: TokenTexts) -> str:
    """All traces, one below another, as a document; save it as UTF-8."""
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("title", "Loquent trace"),
        element("style", Markup(resources.files(__package__).joinpath("style.css").read_text("utf-8"))),
    )
    sections = [_section(number, trace, texts) for number, trace in enumerate(traces, 1)]
    links = [element("a", f"{number}", href=f"#t{number}") for number in range(1, len(traces) + 1)]
    nav = element("nav", "Requests: ", *links) if len(traces) > 1 else Markup()
    return f"<!DOCTYPE html>\n{element('html', head, element('body', nav, *sections), lang='en')}\n"


def _section(number: int, trace: Trace, texts: TokenTexts) -> Markup:
    views = [_DRAWN[view](trace, texts) for view in VIEWS if has(trace, view)]
    return element(
        "section",
        element("h1", name_of(trace)),
        element("blockquote", element("bdi", texts.text(trace.prompt))),
        _facts(trace),
        *views,
        id=f"t{number}",
    )


def _facts(trace: Trace) -> Markup:
    settings = [row(name, printable(json.dumps(value, default=str))) for name, value in sorted(trace.settings.items())]
    tokens = f"{len(trace.prompt)} token{'' if len(trace.prompt) == 1 else 's'}"
    told = f"A prompt of {tokens}, run by {trace.backend}"
    return element("details", element("summary", told), element("table", *settings, class_="settings"))
