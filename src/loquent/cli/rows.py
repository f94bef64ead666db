"""How the rows of a running generation are printed: as texts one after another, as JSON results, or as JSON events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Protocol

from loquent.cli.terminal import Terminal

if TYPE_CHECKING:
    from loquent.text import TextEvent


class Rows(Protocol):
    """Takes the events of all rows."""

    def begin(self, copies: int) -> None:
        """There will be `copies` rows for each prompt."""

    def take(self, event: TextEvent) -> None:
        """News of a row."""

    def end(self) -> None:
        """There are no more, whether all rows are finished or not."""


@dataclass
class _Row:
    prompt: str
    pieces: list[str] = field(default_factory=list)
    tokens: int = 0
    finished: str | None = None


class _Collected:
    def __init__(self, terminal: Terminal, prompts: Sequence[str]) -> None:
        self._terminal = terminal
        self._prompts = prompts
        self._rows: list[_Row] = []
        self._turn = 0

    def begin(self, copies: int) -> None:
        self._rows = [_Row(prompt) for prompt in self._prompts for _ in range(copies)]

    def take(self, event: TextEvent) -> None:
        row = self._rows[event.row]
        row.pieces.append(event.text)
        row.tokens += event.tokens
        row.finished = event.finished
        self._print()

    def _print(self) -> None:
        raise NotImplementedError


class TextRows(_Collected):
    """Texts, one after another with a line break between: the first unfinished one live, the others when it is done."""

    def begin(self, copies: int) -> None:
        super().begin(copies)
        if self._rows:
            self._terminal.prompt(self._rows[0].prompt)

    def _print(self) -> None:
        while self._turn < len(self._rows):
            row = self._rows[self._turn]
            self._terminal.text("".join(row.pieces))
            row.pieces.clear()
            if row.finished is None:
                return
            self._next()

    def _next(self) -> None:
        self._terminal.text("\n")
        self._turn += 1
        if self._turn < len(self._rows):
            self._terminal.prompt(self._rows[self._turn].prompt)

    def end(self) -> None:
        while self._turn < len(self._rows):
            self._terminal.text("".join(self._rows[self._turn].pieces))
            self._next()


class JsonResults(_Collected):
    """A JSON object for each row, in order, as soon as it and those before it are finished."""

    def _print(self) -> None:
        while self._turn < len(self._rows) and self._rows[self._turn].finished is not None:
            self._print_row("")

    def _print_row(self, otherwise: str) -> None:
        row = self._rows[self._turn]
        self._terminal.line(
            {
                "row": self._turn,
                "prompt": row.prompt,
                "text": "".join(row.pieces),
                "tokens": row.tokens,
                "finish_reason": row.finished or otherwise,
            }
        )
        self._turn += 1

    def end(self) -> None:
        while self._turn < len(self._rows):
            self._print_row("cancelled")


class JsonEvents:
    """A JSON object for each event, as it comes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def begin(self, copies: int) -> None:
        """Nothing is printed before the first event."""

    def take(self, event: TextEvent) -> None:
        told = [{"event": type(each).__name__, **asdict(each)} for each in event.trace]
        line = {"row": event.row, "text": event.text, "tokens": event.tokens, "finished": event.finished}
        self._terminal.line({**line, "trace": told} if told else line)

    def end(self) -> None:
        """Each row's last event has said why it ended."""
