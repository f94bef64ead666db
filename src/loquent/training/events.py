"""What a training run tells its listeners, as it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """The run begins, or goes on, behind `first_step` of `steps`; counts of the parameters' numbers."""

    steps: int
    first_step: int
    parameters: int
    trainable: int
    padding: float
    """The share of the packs that is padding."""


@dataclass(frozen=True)
class Stepped:
    """Steps are done; the loss is the mean of a counted token (nats) since the last such event."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    """Read so far by all devices, padding left out."""
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Evaluated:
    """The held-out data were read: the mean loss of a counted token (nats), and whether it is the lowest so far."""

    step: int
    loss: float
    perplexity: float
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint is complete."""

    step: int
    folder: Path


@dataclass(frozen=True)
class Finished:
    """The run ends: "done", "early stop" or "interrupted"."""

    step: int
    reason: str


Event = Started | Stepped | Evaluated | Saved | Finished
Listener = Callable[[Event], None]
