"""A choice: what a backend that selects by itself is told of how one row of logits is answered; it computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.wants import Proposal


@dataclass(eq=False, slots=True)
class Choice:
    """How a row is answered: one token, or with `best` the few best ones and their scores.

    The steps act in the order of the fields from `normalized` to `min_p`, which is that of the rules (`rules.ORDER`);
    what is not asked for is left out, and each does what the rule of that name does. Then a token is drawn, where
    `sampled`, with the number that `decoding.random` has for (seed, position, Purpose.DRAW), or the highest score
    taken; of equal scores the one with the lower id.
    """

    normalized: bool = False  # log-probabilities take the place of the logits
    penalty: float = 1.0  # on the tokens in `seen`
    seen: NDArray[np.int64] | None = None
    banned: NDArray[np.int64] | None = None  # tokens that cannot be chosen
    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0  # 1 or more: all
    min_p: float = 0.0  # 0: all
    sampled: bool = False
    seed: int = 0  # of 64 bits
    position: int = 0
    best: int = 0  # how many tokens; 0: one, without its score
    draft: bool = False  # a token to draft, drawn with the number for Purpose.DRAFT; the answer tells what it is from
    offer: Proposal | None = None  # where `sampled`: the answer is its token if that stands, else what replaces it

    def ban(self, tokens: NDArray[np.int64]) -> None:
        """These tokens cannot be chosen either."""
        self.banned = tokens if self.banned is None else np.concatenate([self.banned, tokens])


NO_NUMBERS = "no_numbers"
"""The answer where a row's logits are not numbers."""
NOTHING_LEFT = "nothing_left"
"""The answer where no token is left to choose."""

Best = tuple[NDArray[np.int64], NDArray[np.float32]]
Drafted = tuple[int, NDArray[np.int64], NDArray[np.float64]]
Chosen = int | Best | Drafted | str
"""A backend's answer to a choice: the token, or why there is none; for `best` tokens and scores (count,), best first.

`best` gives as many as there are; tokens whose score is minus infinity may be left out. A `draft` comes with tokens,
ascending, and their probabilities: where it is drawn those of all that it was drawn from, else its own.
"""
