"""Training: causal language models on texts and conversations, from scratch, from a checkpoint, or as adapters.

It shows nothing; listeners are told what happens (`events`), and some of them write files (`reports`). Reading files is
in `data`. Names are imported when they are first used, since what is about files and arguments needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_MODULES = {
    "arguments": "TrainingArguments",
    "data": "Examples",
    "events": "Evaluated Event Finished Listener Saved Started Stepped",
    "loop": "TrainingResult",
    "running": "train",
}
_MODULE_OF_NAME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'loquent.training' has no attribute {name!r}")
    value = getattr(import_module(f"loquent.training.{_MODULE_OF_NAME[name]}"), name)
    globals()[name] = value
    return value
