"""What a source of scores is: it changes the logits that a strategy's rows are made of, before rules act on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from loquent.decoding.task import Read, Task
from loquent.decoding.trace import LayerChosen
from loquent.decoding.wants import Block


@dataclass(eq=False)
class Part:
    """What a read gives of a source's rows."""

    block: Block  # the strategy's rows, as earlier sources have changed them
    beside: list[Any]  # the answers to the source's own reads
    step: int = 0  # how many generated tokens the first row is behind
    events: list[LayerChosen] | None = None  # takes what there is to tell, where somebody listens


class Source(ABC):
    """Where scores come from, if not from the model's logits alone."""

    @property
    def lenses(self) -> tuple[int, ...]:
        """The layers that it looks at through the head."""
        return ()

    def reads(self, task: Task, read: Read, rows: int) -> list[Read]:
        """What it reads beside a read of the strategy's, of whose tokens it changes the last `rows` rows."""
        return []

    @abstractmethod
    def change(self, part: Part) -> Block:
        """What takes the block's place, with other logits."""
