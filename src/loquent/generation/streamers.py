"""Feeds a streamer in transformers' protocol: the prompts, then one token of every row at a time, then the end."""

from __future__ import annotations

from typing import Any

from loquent.decoding.streaming import BaseStreamer
from loquent.errors import ArgumentError
from loquent.generation.results import tensor_like
from loquent.generation.running import Run, StreamEvent


def check_streamer(streamer: Any) -> None:
    """Refuse what has no `put` and `end` to call.

    Raises:
        ArgumentError: it says what was given instead.
    """
    if isinstance(streamer, type) or not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        given = f"the class {streamer.__name__}" if isinstance(streamer, type) else f"a {type(streamer).__name__}"
        raise ArgumentError(
            f"streamer is {given}. Pass an object with put(value) and end(), such as TextStreamer(tokenizer)."
        )


class StreamerFeed:
    """Lines up the rows, which the engine may serve at different times: a column is put when each row has its token.

    Rows that have ended give the pad token.
    """

    def __init__(self, streamer: Any, run: Run) -> None:
        self._streamer, self._run = streamer, run
        self._tokens: list[list[int]] = [[] for _ in range(run.rows)]
        self._ended = [False] * run.rows
        self._column = self._longest = 0
        self._missing = run.rows  # rows without a token for the column that have not ended

    def begin(self) -> None:
        """Put the prompts, without the last tokens that are made again: those come first of what is generated."""
        prompts, healed = self._run.prompts, self._run.healed
        columns = prompts.columns.copy()
        if all(healed) and (prompts.last == columns.shape[1] - 1).all():
            columns = columns[:, :-1]
        for row in [row for row, count in enumerate(healed) if count and columns.shape == prompts.columns.shape]:
            columns[row, prompts.last[row]] = self._run.pad
        self._put(columns)

    def take(self, event: StreamEvent) -> None:
        """Put the columns that the event completes."""
        was_missing = self._is_missing(event.row)
        self._tokens[event.row] += event.tokens
        self._ended[event.row] |= event.finished is not None
        self._longest = max(self._longest, len(self._tokens[event.row]))
        self._missing -= was_missing and not self._is_missing(event.row)
        while not self._missing and self._column < self._longest:
            pad, column = self._run.pad, self._column
            self._put([tokens[column] if column < len(tokens) else pad for tokens in self._tokens])
            self._column += 1
            self._missing = sum(map(self._is_missing, range(self._run.rows)))
            self._finish_rows()

    def _is_missing(self, row: int) -> bool:
        return len(self._tokens[row]) <= self._column and not self._ended[row]

    def end(self) -> None:
        """Everything has been put."""
        self._streamer.end()

    def fail(self, error: BaseException) -> None:
        """Tell the streamer that nothing more comes, and why where it can be told."""
        if isinstance(self._streamer, BaseStreamer) or hasattr(self._streamer, "fail"):
            self._streamer.fail(error)
        else:
            self._streamer.end()

    def _put(self, values: Any) -> None:
        tensor = tensor_like(self._run.prompts, values)
        self._streamer.put(tensor.cpu() if hasattr(tensor, "cpu") else tensor)

    def _finish_rows(self) -> None:
        if isinstance(self._streamer, BaseStreamer):
            for row, (tokens, ended) in enumerate(zip(self._tokens, self._ended)):
                if ended and len(tokens) == self._column:
                    self._streamer.finish(row)
