"""A conversation with a model: its turns, and how they stay within the model's positions; reads and prints nothing."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loquent.errors import LoquentError

if TYPE_CHECKING:
    from loquent.text import TextEvent, TextModel

# The room for an answer that is kept free where no length is asked for.
ANSWER_TOKENS = 256


@dataclass
class Session:
    """The turns so far, and how to ask for the next answer."""

    model: TextModel
    options: dict[str, Any]
    system: str | None = None
    chat_template: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a turn of the user's."""
        self.turns.append({"role": "user", "content": text})

    def fit(self) -> int:
        """Drop the oldest turns until an answer fits behind the rest; how many were dropped."""
        positions = self.model.max_positions
        if positions is None:
            return 0
        wanted = self.options.get("max_new_tokens") or min(ANSWER_TOKENS, positions // 4)
        dropped = 0
        while len(self.turns) > 1 and len(self._ids()) + wanted > positions:
            # A user's turn goes with its answer, so that the conversation still begins with the user.
            pair = 2 if len(self.turns) > 2 else 1
            del self.turns[:pair]
            dropped += pair
        return dropped

    def answer(self) -> Generator[TextEvent, None, str]:
        """The answer to the last turn, which becomes a turn, whole or as far as it came when the generator is closed.

        Where it fails, the user's turn is taken back.
        """
        pieces: list[str] = []
        events = None
        try:
            events = self.model.chat_events(self._messages(), chat_template=self.chat_template, **self.options)
            for event in events:
                pieces.append(event.text)
                yield event
        except LoquentError:
            self.turns.pop()
            raise
        except (GeneratorExit, KeyboardInterrupt):
            self._keep(pieces)
            raise
        finally:
            if events is not None:
                events.close()
        self._keep(pieces)
        return "".join(pieces)

    def undo(self) -> bool:
        """Take the last question and its answer back; whether there was one."""
        there_was = bool(self.turns)
        self.take_answer_back()
        if self.turns:
            self.turns.pop()
        return there_was

    def take_answer_back(self) -> bool:
        """Leave the last question unanswered again; whether there is one."""
        if self.turns and self.turns[-1]["role"] == "assistant":
            self.turns.pop()
        return bool(self.turns)

    def save(self, path: Path) -> None:
        """Write the conversation as JSON: an object with "messages"."""
        document = {"messages": self._messages()}
        path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    def _keep(self, pieces: list[str]) -> None:
        self.turns.append({"role": "assistant", "content": "".join(pieces)})

    def _messages(self) -> list[dict[str, str]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *self.turns]

    def _ids(self) -> list[int]:
        return self.model.chat_ids(self._messages(), chat_template=self.chat_template)
