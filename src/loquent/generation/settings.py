"""Settings: one GenerationConfig from the model's, the caller's, and the keyword arguments of `generate()`."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loquent.config import GenerationConfig
from loquent.decoding.random import fresh_seed
from loquent.errors import ArgumentError, hint

# Further arguments that a misspelt one may have meant.
_ARGUMENTS = frozenset(
    {
        *("assistant_model", "assistant_tokenizer", "attention_mask", "context_overflow", "generation_config"),
        *("input_ids", "logits_processor", "negative_prompt_attention_mask", "negative_prompt_ids"),
        *("past_key_values", "prefix_allowed_tokens_fn", "prompt_cache", "seed", "stopping_criteria", "streamer"),
        "tokenizer",
    }
)
# Arguments of transformers that this version does not have yet; None and False ask for nothing.
_NOT_YET = frozenset(
    {
        *("custom_generate", "synced_gpus", "use_model_defaults"),
    }
)


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
    unknown = config.update(**_without_what_asks_for_nothing(kwargs))
    if "streamer" in unknown:
        raise ArgumentError("there is no argument 'streamer' here: generate() alone takes it. Leave it out.")
    if unknown:
        near = hint(min(unknown), {*config.to_dict(), *_ARGUMENTS})
        raise ArgumentError(f"generate() has no argument {', '.join(map(repr, sorted(unknown)))}.{near}")
    return config


def merged_for_rows(model: GenerationConfig, given: Any, kwargs: dict[str, Any]) -> list[GenerationConfig]:
    """`merged` for one config, or for a list with one for each row.

    Raises:
        ArgumentError: as `merged`, or the list is empty.
    """
    if not isinstance(given, list | tuple):
        return [merged(model, given, kwargs)]
    if not given:
        raise ArgumentError("generation_config is an empty list. Pass a config, or one for each row.")
    return [merged(model, one, kwargs) for one in given]


def _without_what_asks_for_nothing(kwargs: dict[str, Any]) -> dict[str, Any]:
    for name in sorted(_NOT_YET & set(kwargs)):
        if kwargs[name] is not None and kwargs[name] is not False:
            raise ArgumentError(f"{name}={kwargs[name]!r:.80} is not supported yet. Leave it out.")
    return {name: value for name, value in kwargs.items() if name not in _NOT_YET}


def row_seeds(seed: Any, configs: Sequence[GenerationConfig]) -> list[int]:
    """A seed for each row: those given, or its config's, or a fresh one.

    Raises:
        ArgumentError: a seed is negative or no integer, or there is not one for each row.
    """
    if seed is None:
        return [_own_seed(config) for config in configs]
    rows = len(configs)
    listed = list(seed) if np.ndim(seed) and not isinstance(seed, str) else [seed] * rows
    if len(listed) != rows:
        raise ArgumentError(f"seed has {len(listed)} values for {rows} rows. Pass one integer, or one for each row.")
    return [_seed(value) for value in listed]


def _seed(value: Any) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):  # no integer, or several in one tensor
        number = -1
    if number < 0:
        raise ArgumentError(f"seed={value!r} must be a non-negative integer.")
    return number


def _own_seed(config: GenerationConfig) -> int:
    if config.seed is not None:
        return config.seed
    # A request that draws nothing leaves the generators that fresh seeds come from as they are.
    return fresh_seed() if config.do_sample else 0


def callables(value: Any, argument: str) -> tuple[Any, ...]:
    """One callable, several, or none, as a tuple."""
    listed = () if value is None else tuple(value) if isinstance(value, Iterable) else (value,)
    bad = [item for item in listed if not callable(item)]
    if bad:
        raise ArgumentError(f"{argument} has {bad[0]!r}, which cannot be called. Pass functions.")
    return listed
