"""The history of a run: its events as lines of JSON, of which a resumed run keeps those of the steps it stands on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loquent.errors import CheckpointError
from loquent.hub.files import write_text
from loquent.training.events import Event, Started

HISTORY = "training.jsonl"


def facts(event: Event) -> dict[str, Any]:
    """An event as JSON has it: "event" is its name in lower case, the rest its fields."""
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in vars(event).items()}
    return {"event": type(event).__name__.lower(), **fields}


class History:
    """Appends events to `training.jsonl`.

    What lies behind the step that a run goes on from is dropped, so that no step is there twice, also where the process
    was killed between a line and the next checkpoint.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / HISTORY

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._rewind(event.first_step)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts(event)) + "\n")

    def _rewind(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(self.path) if step and _is_before(line, step)]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's history, the oldest first; none where there is no history.

    Raises:
        CheckpointError: a line other than the last is damaged.
    """
    return list(_lines(folder / HISTORY))


def _is_before(line: Mapping[str, Any], step: int) -> bool:
    # What a run was when it began, and how it ended, is not of a step.
    if "step" not in line:
        return bool(line["event"] == "started")
    return line["event"] != "finished" and bool(line["step"] <= step)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            found = json.loads(line)
            known = isinstance(found, dict) and isinstance(found.get("event"), str)
        except ValueError:
            known = False
        if known:
            yield found
        elif number < len(lines):
            # The last line has no end where a process was killed while it wrote.
            raise CheckpointError(f"{path}, line {number} is no event of a training run. Move the file away.")


def series(history: list[dict[str, Any]], event: str, field: str) -> tuple[list[int], list[float]]:
    """The steps and the values of a field of one kind of event."""
    lines = [line for line in history if line["event"] == event]
    return [line["step"] for line in lines], [line[field] for line in lines]


def smoothed(values: list[float], reach: int) -> list[float]:
    """The mean of each value with `reach` values on both sides, with fewer near the ends, and as many on both."""
    means = []
    for at in range(len(values)):
        near = min(reach, at, len(values) - 1 - at)
        means.append(sum(values[at - near : at + near + 1]) / (2 * near + 1))
    return means
