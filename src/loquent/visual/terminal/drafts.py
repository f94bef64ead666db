"""Speculation in the terminal: round by round the drafts that stood and fell, and what came in their place."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loquent.decoding.trace import Drafted, Trace
from loquent.visual.folding import folded
from loquent.visual.rounds import Rounds, rounds_of
from loquent.visual.terminal.canvas import FAINT, Canvas, bar, listing, title
from loquent.visual.texts import isolated
from loquent.visual.views import NOTHING

_ROUNDS = 36
_FALLEN = 3
_ACCEPTED, _REJECTED, _OWN = "green", "red strike", "bold"


def drafts(trace: Trace, canvas: Canvas) -> RenderableType:
    """All rounds."""
    rounds = rounds_of(trace)
    if not rounds.events:
        return Text(NOTHING["draft"])
    legend = Text.assemble(("✓ stands", _ACCEPTED), "   ", ("✗ falls", _REJECTED), "   ", ("→ the model's own", _OWN))
    if any(draft.confidence < 1 for event in rounds.events for draft in event.drafts):
        legend.append("   (%) the draft's confidence in what fell", FAINT)
    return Group(title("Drafts"), Text(rounds.summary), legend, _table(rounds, canvas))


def _table(rounds: Rounds, canvas: Canvas) -> Table:
    table = listing("Step", "Stand", "", "Tokens", right=("Step",))
    longest = max(len(event.drafts) for event in rounds.events)
    first, missing, last = folded(rounds.events, canvas.limit(_ROUNDS))
    for event in first:
        table.add_row(*_cells(event, longest, canvas))
    if missing:
        table.add_row("⋮", Text(f"{missing} rounds left out", FAINT))
    for event in last:
        table.add_row(*_cells(event, longest, canvas))
    return table


def _cells(event: Drafted, longest: int, canvas: Canvas) -> list[Text]:
    share = bar(event.accepted / longest, 8)
    return [
        Text(str(event.step + 1), FAINT),
        Text(f"{event.accepted}/{len(event.drafts)}"),
        Text(f"{share:8}", _ACCEPTED),
        _tokens(event, canvas),
    ]


def _tokens(event: Drafted, canvas: Canvas) -> Text:
    """The drafts; on terminals those behind the first that fell are only counted where there are many."""
    text, fallen = Text(), [draft for draft in event.drafts if draft.fate == "rejected"]
    most = canvas.limit(_FALLEN) or len(fallen)
    for draft in event.drafts[: event.accepted]:
        text.append("✓", _ACCEPTED).append(isolated(canvas.texts.token(draft.token)), _ACCEPTED).append(" ")
    for place, draft in enumerate(fallen[:most]):
        text.append("✗", "red").append(isolated(canvas.texts.token(draft.token)), _REJECTED).append(" ")
        if not place and draft.confidence < 1:
            text.append(f"({draft.confidence:.0%}) ", FAINT)
    if len(fallen) > most:
        text.append(f"✗… {len(fallen) - most} more ", FAINT)
    if event.token is not None:
        text.append("→").append(isolated(canvas.texts.token(event.token.token)), _OWN)
    return text
