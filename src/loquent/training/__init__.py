"""Training: causal language models on texts and conversations, from scratch, from a checkpoint, or as adapters.

It shows nothing; listeners are told what happens (`events`). Reading files is in `data`.
"""

from __future__ import annotations

from loquent.training.arguments import TrainingArguments
from loquent.training.data import Examples
from loquent.training.events import Evaluated, Event, Finished, Listener, Saved, Started, Stepped
from loquent.training.loop import TrainingResult
from loquent.training.running import train

__all__ = [
    "Evaluated",
    "Event",
    "Examples",
    "Finished",
    "Listener",
    "Saved",
    "Started",
    "Stepped",
    "TrainingArguments",
    "TrainingResult",
    "train",
]
