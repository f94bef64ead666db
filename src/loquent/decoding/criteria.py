"""Stopping criteria as objects, in transformers' calling convention: `criterion(input_ids, scores)` says when to stop.

The engine asks them for one row at a time, with unpadded ids (1, length). Ends that a generation config can state
(`eos_token_id`, `max_new_tokens`, `max_time`, `stop_strings`) need none of them; they are here for programs that use
them by name.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from loquent.decoding.arrays import to_numpy
from loquent.decoding.stop_strings import Decodes, StopStrings
from loquent.errors import ArgumentError


class StoppingCriteria(ABC):
    """A caller's own reason to stop."""

    @abstractmethod
    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Whether to stop: a bool, or one for each row of `input_ids` (rows, length)."""


class StoppingCriteriaList(list[StoppingCriteria]):
    """Several criteria, any of which stops."""

    def __init__(self, criteria: Iterable[StoppingCriteria] = ()) -> None:
        super().__init__(criteria)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
        return any(says_stop(criterion(input_ids, scores, **kwargs)) for criterion in self)

    @property
    def max_length(self) -> int | None:
        """The least length that a MaxLengthCriteria among them stops at; None where there is none."""
        return min(
            (criterion.max_length for criterion in self if isinstance(criterion, MaxLengthCriteria)), default=None
        )


class MaxLengthCriteria(StoppingCriteria):
    """Stops at `max_length` tokens, the prompt's counted."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length = max_length
        self.max_position_embeddings = max_position_embeddings

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
        return bool(input_ids.shape[-1] >= self.max_length)


class MaxTimeCriteria(StoppingCriteria):
    """Stops `max_time` seconds after `initial_timestamp` (`time.time()`; now, if None)."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
        return time.time() - self.initial_timestamp > self.max_time


class EosTokenCriteria(StoppingCriteria):
    """Stops behind any of the tokens `eos_token_id`."""

    def __init__(self, eos_token_id: int | Iterable[int]) -> None:
        self.eos_token_id = frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
        return int(input_ids[0, -1]) in self.eos_token_id


class StopStringCriteria(StoppingCriteria):
    """Stops as soon as one of `stop_strings` is complete in the text that `tokenizer` makes of the ids."""

    def __init__(self, tokenizer: Decodes, stop_strings: str | Iterable[str]) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
        return StopStrings(self.stop_strings, self.tokenizer).found(to_numpy(input_ids)[0])


def says_stop(answer: Any) -> bool:
    """What a criterion meant for the one row that it was asked about."""
    if isinstance(answer, bool):
        return answer
    values = to_numpy(answer).reshape(-1)
    if len(values) != 1:
        raise ArgumentError(f"a stopping criterion answered with {len(values)} values for one row; return one")
    return bool(values[0])
