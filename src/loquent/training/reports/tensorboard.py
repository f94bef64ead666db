"""A run's events as TensorBoard's logs, in `runs/` of the output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loquent.errors import MissingExtraError
from loquent.training.events import Evaluated, Event, Finished, Started, Stepped

RUNS = "runs"


class TensorBoard:
    """Writes losses, rates and speeds by step.

    A resumed run adds a file that says from which step it goes on, and TensorBoard leaves out what lies behind it.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train", "--tensorboard") from error
        self._make, self._folder = SummaryWriter, folder / RUNS
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._writer = self._make(str(self._folder), purge_step=event.first_step + 1 if event.first_step else None)
        for name, value in _scalars(event).items():
            self._writer.add_scalar(name, value, event.step)
        if isinstance(event, Finished):
            self._writer.close()


def _scalars(event: Event) -> dict[str, float]:
    if isinstance(event, Stepped):
        return {
            "train/loss": event.loss,
            "train/learning_rate": event.learning_rate,
            "train/gradient_norm": event.gradient_norm,
            "train/tokens_per_second": event.tokens_per_second,
            "train/epoch": event.epoch,
        }
    if isinstance(event, Evaluated):
        return {"evaluation/loss": event.loss, "evaluation/perplexity": event.perplexity}
    return {}
