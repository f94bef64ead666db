"""What is drawn on: how wide, whether in colours, how much of what is long; and the pieces that all views share."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.table import Table
from rich.text import Text

from loquent.visual.texts import TokenTexts, isolated

FAINT = "dim"
_EIGHTHS: tuple[str, ...] = ("", *"▏▎▍▌▋▊▉")


@dataclass(frozen=True)
class Canvas:
    """A terminal, or a file that takes the place of one."""

    texts: TokenTexts
    width: int = 100
    coloured: bool = True
    folded: bool = True  # whether the middle of what is long is left out

    def limit(self, most: int) -> int | None:
        """How many items may be drawn."""
        return most if self.folded else None

    def token(self, token: int, style: str = "") -> Text:
        """A token in a list; numbers beside it need the room more than a long one does."""
        text, cells = self.texts.token(token), max(self.width // 4, 6)
        if cell_len(text) > cells:
            text = chop_cells(text, cells - 1)[0] + "…"
        return Text(isolated(text), style, no_wrap=True)

    def tail(self, tokens: tuple[int, ...], cells: int) -> Text:
        """The end of a text, on one line of so many cells."""
        text = self.texts.text(tokens[-cells:])  # a token is a cell or more, but for the few that write nothing
        if cell_len(text) > cells:
            text = "…" + chop_cells(text[::-1], max(cells - 1, 1))[0][::-1]
        return Text(isolated(text), no_wrap=True)


def listing(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; the columns in `right` have numbers, and the last one gets the room that is left."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=FAINT)
    for column in columns:
        is_last = column is columns[-1]
        table.add_column(column, justify="right" if column in right else "left", no_wrap=not is_last)
    return table


def title(text: str) -> Text:
    """What stands above a part."""
    return Text(text, "bold")


def bar(share: float, cells: int = 10) -> str:
    """A share (0, 1) as a bar of at most so many cells, in eighths of a cell."""
    eighths = round(max(0.0, min(share, 1.0)) * cells * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
