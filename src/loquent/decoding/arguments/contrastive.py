"""From a generation config to contrastive search, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.decoding.strategies import contrastive_search
from loquent.decoding.task import Strategy, Task
from loquent.errors import ArgumentError


def contrastive_of(config: GenerationConfig, around: Surroundings) -> Callable[[Task], Strategy] | None:
    """The strategy, where a config asks for it.

    Raises:
        ArgumentError: as by `candidates_of`.
    """
    count = candidates_of(config)
    if not count:
        return None
    return partial(contrastive_search, alpha=config.penalty_alpha or 0.0, count=count, layer=around.layers)


def candidates_of(config: GenerationConfig) -> int:
    """How many tokens contrastive search compares; 0: it is not asked for, or has no choice.

    Raises:
        ArgumentError: the number of candidates is missing, or there are beams.
    """
    if not config.penalty_alpha or config.do_sample:
        return 0
    if not config.top_k:
        raise ArgumentError(
            f"penalty_alpha={config.penalty_alpha} with top_k={config.top_k} compares no number of tokens. Pass top_k, "
            "such as 4."
        )
    if config.num_beams > 1:
        raise ArgumentError(
            f"penalty_alpha={config.penalty_alpha} (contrastive search) does not go with num_beams={config.num_beams}. "
            "Leave one of them out."
        )
    return config.top_k if config.top_k > 1 else 0
