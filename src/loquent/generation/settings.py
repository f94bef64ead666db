"""Settings: one GenerationConfig from the model's, the caller's, and the keyword arguments of `generate()`."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from loquent.config import GenerationConfig
from loquent.decoding.random import fresh_seed
from loquent.errors import ArgumentError


def merged(model: GenerationConfig, given: Any, kwargs: dict[str, Any]) -> GenerationConfig:
    """The model's config, under what `given` sets, under the keyword arguments, which must all be fields.

    Raises:
        ArgumentError: an argument is no field, cannot work, or contradicts another.
    """
    if given is not None and not isinstance(given, GenerationConfig):
        raise ArgumentError(
            f"generation_config={given!r} is a {type(given).__name__}. Pass a loquent.GenerationConfig, "
            "or its fields as keyword arguments."
        )
    config = model.copy() if given is None else given.over(model)
    unknown = config.update(**kwargs)
    if unknown:
        raise ArgumentError(f"generate() has no argument {', '.join(map(repr, sorted(unknown)))}.")
    return config


def row_seeds(seed: Any, config: GenerationConfig, rows: int) -> list[int]:
    """A seed for each row.

    Raises:
        ArgumentError: a seed is negative or no integer, or there is not one for each row.
    """
    seeds: Any = config.seed if seed is None else seed
    if seeds is None:
        return [fresh_seed() for _ in range(rows)]
    listed = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else [seeds] * rows
    if len(listed) != rows:
        raise ArgumentError(f"seed has {len(listed)} values for {rows} rows. Pass one integer, or one for each row.")
    bad = [value for value in listed if isinstance(value, bool) or not isinstance(value, Integral) or value < 0]
    if bad:
        raise ArgumentError(f"seed={bad[0]!r} must be a non-negative integer.")
    return [int(value) for value in listed]


def callables(value: Any, argument: str) -> tuple[Any, ...]:
    """One callable, several, or none, as a tuple."""
    listed = () if value is None else tuple(value) if isinstance(value, Iterable) else (value,)
    bad = [item for item in listed if not callable(item)]
    if bad:
        raise ArgumentError(f"{argument} has {bad[0]!r}, which cannot be called with (input_ids, scores).")
    return listed
