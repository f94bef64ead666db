"""What a model of another library lends to the native backend: its weights where they are, and word of their changes.

It is the seam between two backends that do not know each other: the lender makes a `Loan`, `loquent.native` reads it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loquent.engine.backend import Array
from loquent.parts import Decoder


@dataclass(frozen=True, eq=False)
class Lent:
    """One weight in its owner's memory, which the array keeps alive."""

    kind: str  # "float32", "float16" or "bfloat16"
    numbers: NDArray[Any]  # a view; bfloat16 as its bits, uint16


@dataclass(frozen=True)
class Survey:
    """What there is to know of a model before each run, to decide who runs it."""

    obstacle: str | None  # why a plan must not run it as it is now, in a few words
    places: Hashable = None  # where its weights are: a loan lasts as long as these are equal


class Loan(Protocol):
    """The weights of one model, as long as none of them moves."""

    @property
    def decoder(self) -> Decoder:
        """What they are the weights of."""

    @property
    def weights(self) -> Mapping[str, Lent]:
        """By the names of `loquent.weights`, a tied head left out; the rows of matrices are contiguous."""

    @property
    def packed(self) -> bool:
        """Whether matrices shall be copied into the faster layout, which takes their memory again."""

    def changed(self) -> frozenset[str]:
        """Which weights hold other numbers than when this was last asked."""

    def as_array(self, rows: NDArray[np.float32]) -> Array:
        """Rows as the lender's library has them, over the same memory."""
