"""What a request is resolved against, beside its config: facts of the model, and objects that no config can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loquent.cache import StoreKind

if TYPE_CHECKING:
    from loquent.decoding.arguments.speculation import Assistant

DEFAULT_NEW_TOKENS = 20


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a request is resolved against: facts of the model, and objects that no config can hold."""

    vocabulary: int
    max_positions: int | None
    layers: int = 1  # blocks
    tied: bool = False  # whether the head's matrix is the embedding's
    has_windows: bool = False  # whether some layer sees the last tokens alone
    store: StoreKind | None = None  # how keys and values are kept, where a cache was passed that says so
    dtype: str = "float32"  # the model's, and where it is
    device: str = "cpu"
    tokenizer: Any = None
    processors: tuple[Callable[[Any, Any], Any], ...] = ()
    criteria: tuple[Callable[[Any, Any], Any], ...] = ()
    slide: bool = False  # past the model's positions, drop the oldest tokens instead of refusing
    default_new_tokens: int = DEFAULT_NEW_TOKENS  # where no length is asked for
    negative_prompt: NDArray[np.int64] | None = None  # (n,), what guidance leads away from
    assistant: Assistant | None = None  # a model that drafts
    free_rows: int = 8  # how many rows the model takes in about the time of one
    host_work: float = 0.0  # what the host does for a pass, in passes of the model
    row_work: float = 0.0  # what drawing from a row takes outside the pass, in passes of the model
    allowed: Callable[[int, Any], Any] | None = None  # `prefix_allowed_tokens_fn`
    row: int = 0  # which of the prompts
    as_given: Callable[[Any], Any] | None = None  # makes the backend's arrays the caller's, where they differ
    as_ids: Callable[[NDArray[np.int64]], Any] = field(default=lambda tokens: tokens[None, :])


def as_tuple(value: int | Sequence[int] | None) -> tuple[int, ...]:
    """One id, several or none, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
