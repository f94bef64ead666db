"""What a strategy may ask of the rows that a read gives: plain data, answered for all requests at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Next:
    """The next token after the read: drawn where the request samples, else the most likely. Answer: int."""


@dataclass(frozen=True)
class Top:
    """The `count` next tokens with the highest log-probabilities after the rules. Answer: Candidates."""

    count: int


@dataclass(frozen=True)
class Scores:
    """The whole row of scores after the rules. Answer: an array (vocabulary,) of the backend's library."""


@dataclass(frozen=True)
class Likelihood:
    """The log-probability of each token of the read but the first, given those before; rules do not act.

    Answer: NDArray[float64] (tokens - 1,).
    """


Want = Next | Top | Scores | Likelihood
WANTS: tuple[type[Want], ...] = (Next, Top, Scores, Likelihood)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Tokens and their log-probabilities, best first; equal ones in the order of their ids."""

    tokens: NDArray[np.int64]  # (count,)
    scores: NDArray[np.float64]  # (count,)
