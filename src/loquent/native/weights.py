"""What lowering needs of a model's weights, wherever they are; it knows neither files nor other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from loquent.native._core import Matrix


class Weights(Protocol):
    """The weights of one model by the canonical names of `loquent.weights`.

    Matrices are what tokens are multiplied with or looked up in: `tokens`, `positions`, `attention.qkv`,
    `attention.output`, everything of `mlp` that is one, and `head`, each with `.weight` behind it. All else is a
    vector: norms, biases, residual scales, and of the dynamic mask both `decay` and `step`.
    """

    def matrix(self, name: str) -> Matrix:
        """A matrix (outputs, inputs); a tied head is not asked for."""

    def vector(self, name: str) -> NDArray[np.float32]:
        """Numbers of the shape that `loquent.weights` gives, contiguous, and not changed by anybody afterwards."""


class Changes(Protocol):
    """Word of weights that change where they are, for all who read them: each remembers the version that it knows."""

    @property
    def version(self) -> int:
        """Another one whenever weights were found changed; asking costs nothing."""

    def look(self) -> int:
        """Look for changes, and the version then."""
