"""Tokens that a caller's function allows next: transformers' `prefix_allowed_tokens_fn(batch_id, input_ids)`.

Made for constrained entity names in De Cao et al., 2021 (arXiv:2010.00904).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, only, to_numpy
from loquent.decoding.rules.base import Context, Rule
from loquent.errors import ArgumentError


@dataclass(frozen=True)
class PrefixAllowed(Rule):
    """Leaves what `function(row, ids)` returns, a list of tokens; ids are the row's unpadded text so far, (length,)."""

    calls_back: ClassVar[bool] = True

    function: Callable[[int, Any], Any]
    row: int  # of the prompt, in what `generate` was given
    as_given: Callable[[Any], Any] | None = None  # makes arrays what the caller works with; None: they are left

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[PrefixAllowed], contexts: Sequence[Context]) -> Array:
        return only(scores, [rule._allowed(scores, context) for rule, context in zip(rules, contexts)])

    def _allowed(self, scores: Array, context: Context) -> NDArray[Any]:
        tokens = context.tokens.copy()
        ids = beside(scores, tokens) if self.as_given is None else self.as_given(tokens)
        returned = self.function(self.row, ids)
        try:
            allowed = np.unique(to_numpy(returned if hasattr(returned, "dtype") else list(returned)))
        except (TypeError, ValueError) as error:
            raise ArgumentError(
                f"prefix_allowed_tokens_fn returned {returned!r:.80} for row {self.row}. Return a list of token ids."
            ) from error
        if not len(allowed):
            raise ArgumentError(
                f"prefix_allowed_tokens_fn allows no token behind {len(tokens)} of row {self.row}. "
                "Return at least one, such as the end token."
            )
        vocabulary = scores.shape[1]
        if not np.issubdtype(allowed.dtype, np.integer) or allowed[0] < 0 or allowed[-1] >= vocabulary:
            raise ArgumentError(
                f"prefix_allowed_tokens_fn returned {returned!r:.80} for row {self.row}; the vocabulary is 0 to "
                f"{vocabulary - 1}. Return a list of token ids."
            )
        return allowed
