"""What a draft is: something that guesses how one request's text goes on; it verifies nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

from numpy.typing import NDArray

from loquent.decoding.task import Asks
from loquent.decoding.wants import Proposal

Drafting = Generator[Asks, list[Any], list[Proposal]]
"""Yields reads of its own, is sent their answers, and returns what it proposes, which may be nothing."""


class Draft(ABC):
    """Guesses for one request, whose text only grows."""

    @abstractmethod
    def propose(self, text: NDArray[Any], count: int) -> Drafting:
        """At most `count` tokens that may follow `text` (length,), none behind one that ends the output."""
