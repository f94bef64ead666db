"""Rows that come at different times, lined up for a streamer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from loquent.generation import StreamEvent
from loquent.generation.prompts import Prompts
from loquent.generation.streamers import StreamerFeed

PAD = -1


class Recorder:
    def __init__(self) -> None:
        self.columns: list[list[int]] = []

    def put(self, value: Any) -> None:
        self.columns.append(value.tolist())

    def end(self) -> None:
        pass


def feed_of(rows: int, recorder: Recorder) -> StreamerFeed:
    columns = np.zeros((rows, 1), np.int64)
    prompts = Prompts(columns, columns == 0, list(columns), device=None, as_tensors=False)
    run: Any = SimpleNamespace(rows=rows, prompts=prompts, pad=PAD)
    return StreamerFeed(recorder, run)


def test_a_column_is_put_when_every_row_has_its_token_or_has_ended() -> None:
    recorder = Recorder()
    feed = feed_of(3, recorder)
    heights = []
    for event in (
        StreamEvent(0, (1, 2, 3)),
        StreamEvent(2, (7,)),
        StreamEvent(1, (5,)),  # completes the first column
        StreamEvent(2, (), "eos"),
        StreamEvent(1, (6,), "eos"),  # the second and, with nothing to wait for, the third
        StreamEvent(0, (4,), "length"),
    ):
        feed.take(event)
        heights.append(len(recorder.columns))
    assert heights == [0, 0, 1, 1, 3, 4]
    assert recorder.columns == [[1, 5, 7], [2, 6, PAD], [3, PAD, PAD], [4, PAD, PAD]]


def test_many_rows_are_looked_at_once_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    is_missing = StreamerFeed._is_missing

    def counting(self: StreamerFeed, row: int) -> bool:
        nonlocal looks
        looks += 1
        return is_missing(self, row)

    monkeypatch.setattr(StreamerFeed, "_is_missing", counting)
    recorder = Recorder()
    feed = feed_of(200, recorder)
    for column in range(5):
        for row in range(200):
            feed.take(StreamEvent(row, (column,)))
    assert recorder.columns == [[column] * 200 for column in range(5)]
    assert looks == 3 * 5 * 200
