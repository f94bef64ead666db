"""`TextRun`: a running generation as texts, and what its strategies told of their way; it decides nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from loquent.decoding.trace import Event, Trace
from loquent.generation import Run, traces
from loquent.text.continuation import Continuation


@dataclass(frozen=True)
class TextEvent:
    """News of one row of a running generation: a final piece of its text, and why it ended if it has."""

    row: int  # the prompt's number * num_return_sequences + which of its texts
    text: str  # may be empty: a character or a stop string that is not complete yet
    tokens: int  # how many tokens this event brought
    finished: str | None = None  # "eos", "length", "stop_string", "time", "criteria", "cancelled"
    trace: tuple[Event, ...] = ()  # with `output_trace=True`, what the strategy has told since the row's last event


class TextRun:
    """The requests of one call; `TextModel.run` makes it.

    Args:
        run: the submitted requests.
        rows: makes text of the tokens of each row of the result.
    """

    def __init__(self, run: Run, rows: Sequence[Continuation]) -> None:
        self._run, self._rows = run, rows

    def events(self) -> Generator[TextEvent, None, None]:
        """What happens, as it happens; closing the generator stops the model."""
        return _as_text(self._run, self._rows)

    @property
    def reused(self) -> int:
        """How many tokens of the prompt its `prompt_cache` held."""
        return 0 if self._run.cache is None else self._run.cache.reused

    def traces(self) -> list[Trace]:
        """What the strategy of each request told so far, for runs with `output_trace`.

        A prompt is one request, or `num_return_sequences` of them where its texts are drawn one by one.
        """
        return traces(self._run)


def _as_text(run: Run, rows: Sequence[Continuation]) -> Generator[TextEvent, None, None]:
    news = run.stream()  # at once: what is not consumed is cancelled

    def events() -> Generator[TextEvent, None, None]:
        with closing(news):
            for event in news:
                text = rows[event.row].push(event.tokens)
                if event.finished:
                    text += rows[event.row].flush()
                yield TextEvent(event.row, text, len(event.tokens), event.finished, event.trace)

    return events()
