"""What listeners write: a history without double steps, a curve of what it says, and logs that TensorBoard reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from loquent.errors import CheckpointError, MissingExtraError
from loquent.training.events import Evaluated, Event, Finished, Saved, Started, Stepped
from loquent.training.reports import History, read_history
from loquent.training.reports.curve import draw_curve, figure_of
from loquent.training.reports.history import smoothed
from loquent.training.reports.tensorboard import TensorBoard


def stepped(step: int, loss: float) -> Stepped:
    return Stepped(step, 100, step / 10, loss, 1e-3 / step, 0.5, 100 * step, 1000.0, 9.0)


def a_run(folder: Path, first: int = 0, last: int = 60) -> list[Event]:
    """Events of steps behind `first`, with an evaluation and a checkpoint after every tenth."""
    events: list[Event] = [Started(100, first, 1000, 10, 0.1)]
    for step in range(first + 1, last + 1):
        events.append(stepped(step, 5 - step / 50 + step % 3 / 10))
        if step % 10 == 0:
            events.append(Evaluated(step, 5 - step / 60, 100.0 - step, True))
            events.append(Saved(step, folder / f"checkpoint-{step}"))
    return events


def written(folder: Path, events: list[Event]) -> list[dict[str, Any]]:
    history = History(folder)
    for event in events:
        history(event)
    return read_history(folder)


def test_the_history_has_every_event(tmp_path: Path) -> None:
    lines = written(tmp_path, [*a_run(tmp_path, last=10), Finished(10, "done")])
    assert [line["event"] for line in lines] == ["started", *["stepped"] * 10, "evaluated", "saved", "finished"]
    assert lines[3]["loss"] == stepped(3, 5 - 3 / 50).loss
    assert lines[-2]["folder"] == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize("cut", [0, 1, 30], ids=["whole", "without its end", "half"])
def test_a_resumed_history_has_every_step_once(tmp_path: Path, cut: int) -> None:
    whole = written(tmp_path / "whole", a_run(tmp_path, last=30))
    written(tmp_path / "broken", a_run(tmp_path, last=17))
    path = tmp_path / "broken/training.jsonl"
    # As a process leaves it that is killed while it writes a line.
    path.write_bytes(path.read_bytes()[: -cut or None])
    resumed = written(tmp_path / "broken", a_run(tmp_path, first=10, last=30))
    started = [line["first_step"] for line in resumed if line["event"] == "started"]
    assert started == [0, 10]
    assert [line for line in resumed if line["event"] != "started"] == whole[1:]


def test_a_run_that_begins_anew_forgets_the_old_history(tmp_path: Path) -> None:
    written(tmp_path, a_run(tmp_path))
    assert len(written(tmp_path, a_run(tmp_path, last=5))) == 6


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "training.jsonl"
    path.write_text('{"event": "started"}\n[1]\n{"event": "finished", "step": 1}\n')
    with pytest.raises(CheckpointError, match=r"training.jsonl, line 2 is no event of a training run"):
        read_history(tmp_path)


def test_the_curve_shows_what_the_history_says(tmp_path: Path) -> None:
    history = written(tmp_path, a_run(tmp_path))
    losses, rates = figure_of(history).axes
    lines = {line.get_label(): line for line in [*losses.get_lines(), *rates.get_lines()]}
    assert set(lines) == {"training loss", "its running mean", "held-out loss", "learning rate"}
    steps = [line for line in history if line["event"] == "stepped"]
    assert list(lines["training loss"].get_xdata()) == [line["step"] for line in steps]
    assert list(lines["training loss"].get_ydata()) == [line["loss"] for line in steps]
    assert list(lines["learning rate"].get_ydata()) == [line["learning_rate"] for line in steps]
    evaluated = [line for line in history if line["event"] == "evaluated"]
    assert list(lines["held-out loss"].get_ydata()) == [line["loss"] for line in evaluated]
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("step", "loss (nats a token)")
    assert [text.get_text() for text in losses.texts] == ["perplexity 40"]
    path = draw_curve(tmp_path)
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_curve_without_steps_or_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw_curve(tmp_path) is None
    written(tmp_path, a_run(tmp_path, last=3))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'loss curve needs matplotlib.*pip install "loquent\[train\]"'):
        draw_curve(tmp_path)


def test_the_running_mean_has_as_many_points_on_both_sides() -> None:
    assert smoothed([5.0, 7.0, 6.0, 2.0], 0) == [5.0, 7.0, 6.0, 2.0]
    assert smoothed([5.0, 7.0, 6.0, 2.0], 1) == [5.0, 6.0, 5.0, 2.0]
    assert smoothed([1.0, 2.0, 3.0, 4.0, 5.0], 9) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert smoothed([0.0, 0.0, 5.0, 0.0, 0.0], 2) == pytest.approx([0.0, 5 / 3, 1.0, 5 / 3, 0.0])


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((0, 17), (10, 30)):
        board = TensorBoard(tmp_path)
        for event in [*a_run(tmp_path, first, last), Finished(last, "interrupted")]:
            board(event)
    read = EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    assert [point.step for point in read.Scalars("train/loss")] == list(range(1, 31))
    expected = [event.loss for event in a_run(tmp_path, last=30) if isinstance(event, Stepped)]
    assert [point.value for point in read.Scalars("train/loss")] == pytest.approx(expected)
    assert [point.value for point in read.Scalars("evaluation/perplexity")] == [90.0, 80.0, 70.0]


def test_history_lines_are_json_alone(tmp_path: Path) -> None:
    written(tmp_path, a_run(tmp_path, last=2))
    for line in (tmp_path / "training.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
