"""What a rule on scores (a logits processor) is: settings for one request, applied to all rows that have it at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Memory
from loquent.decoding.arrays import Array
from loquent.decoding.choice import Choice


@dataclass(eq=False, slots=True)
class Context:
    """What a row's rules may look at: the tokens that the row continues."""

    tokens: NDArray[np.int64]  # (length,), the prompt's and the generated ones
    prompt: int  # how many of them are the prompt's
    seed: int = 0  # the request's; what a rule draws comes from it and the length (`decoding.random`)
    memory: Memory = field(default_factory=Memory)  # what rules with state keep of this sequence, by its length

    @property
    def generated(self) -> int:
        """How many tokens have been generated."""
        return len(self.tokens) - self.prompt


class Rule(ABC):
    """One request's settings of a rule. Instances are immutable; the class applies many of them in one go."""

    calls_back: ClassVar[bool] = False  # whether it runs code of the caller's, which may run the model again

    @classmethod
    @abstractmethod
    def apply(cls, scores: Array, rules: Sequence[Any], contexts: Sequence[Context]) -> Array:
        """The scores (rows, vocabulary), float32, after rule `rules[i]` has acted on row i in its context.

        `scores` may be changed in place: they are the caller's own copy.
        """

    def narrow(self, choice: Choice, context: Context) -> bool:
        """Say in `choice` what `apply` does to a row in this context, for a backend that selects by itself.

        Called at every step, in any order with the request's other rules, on a choice without bans. Returns whether
        that can be said; where it cannot, `apply` acts.
        """
        return False
