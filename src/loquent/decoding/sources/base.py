"""What a source of scores is: it changes the logits that a strategy's rows are made of, before rules act on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from loquent.decoding.arrays import Array
from loquent.decoding.task import Read, Task
from loquent.decoding.wants import Block


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
    def logits(self, task: Task, place: Place, block: Block, beside: list[Any]) -> Array:
        """What takes the place of a block's logits, (rows, vocabulary).

        Args:
            task: the request's.
            place: where the block is.
            block: what came of the strategy's read, as earlier sources have changed it.
            beside: the answers to `reads`.
        """


@dataclass(frozen=True)
class Place:
    """Where a block's rows are: the read's number among the strategy's, and how many tokens the first is behind."""

    lane: int
    length: int
