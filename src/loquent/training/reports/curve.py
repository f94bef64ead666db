"""The loss curve of a run as a picture, from its history alone; matplotlib draws it, without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loquent.errors import MissingExtraError
from loquent.training.reports.history import read_history, series, smoothed

CURVE = "loss.png"
_LOSS, _SMOOTH, _HELD_OUT, _RATE = "#9db8d9", "#1f4e8c", "#c0392b", "#8a8f98"


def draw_curve(folder: Path) -> Path | None:
    """Write `loss.png` beside `training.jsonl`; None where the history has no step yet.

    Raises:
        MissingExtraError: matplotlib is not installed.
        CheckpointError: the history is damaged.
    """
    history = read_history(folder)
    if not series(history, "stepped", "loss")[0]:
        return None
    path = folder / CURVE
    figure = figure_of(history)
    figure.savefig(path, dpi=150)
    return path


def figure_of(history: list[dict[str, Any]]) -> Any:
    """A matplotlib Figure: the loss, its running mean and the evaluations, and the learning rate on an axis of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator, ScalarFormatter
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train", "the picture of the loss curve") from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.add_subplot()
    rates = axis.twinx()
    # The loss is drawn over the learning rate.
    axis.set_zorder(rates.get_zorder() + 1)
    axis.patch.set_visible(False)
    _draw_losses(axis, history)
    steps, rate = series(history, "stepped", "learning_rate")
    rates.plot(steps, rate, color=_RATE, linewidth=1, linestyle=(0, (4, 3)), label="learning rate")
    rates.set_ylabel("learning rate", color=_RATE)
    rates.tick_params(axis="y", colors=_RATE)
    rates.set_ylim(bottom=0)
    rates.yaxis.set_major_formatter(ScalarFormatter(useMathText=True))
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axis.set_xlabel("step")
    axis.set_ylabel("loss (nats a token)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, color="#e6e8eb", linewidth=0.7)
    for side in (axis, rates):
        side.spines["top"].set_visible(False)
    lines = [*axis.get_lines(), *rates.get_lines()]
    labels = [str(line.get_label()) for line in lines]
    # Above the axes, where it hides no line.
    figure.legend(lines, labels, loc="outside upper center", ncols=len(lines), frameon=False)
    return figure


def _draw_losses(axis: Any, history: list[dict[str, Any]]) -> None:
    steps, losses = series(history, "stepped", "loss")
    reach = len(losses) // 40
    if reach:
        axis.plot(steps, losses, color=_LOSS, linewidth=0.8, label="training loss")
        axis.plot(steps, smoothed(losses, reach), color=_SMOOTH, linewidth=1.8, label="its running mean")
    else:
        axis.plot(steps, losses, color=_SMOOTH, linewidth=1.5, marker=".", label="training loss")
    at, found = series(history, "evaluated", "loss")
    if not at:
        return
    _, perplexities = series(history, "evaluated", "perplexity")
    axis.plot(at, found, color=_HELD_OUT, linewidth=1.2, marker="o", markersize=4, label="held-out loss")
    lowest = min(range(len(found)), key=found.__getitem__)
    axis.annotate(
        f"perplexity {perplexities[lowest]:.4g}",
        (at[lowest], found[lowest]),
        xytext=(-6, 10),
        textcoords="offset points",
        ha="right" if at[lowest] > steps[-1] / 2 else "left",
        color=_HELD_OUT,
    )
