"""From a generation config to the sources of scores that it asks for: DoLa and guidance, checked against the model."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loquent.config.generation import GenerationConfig
from loquent.decoding.sources import DoLa, Guidance, Source, candidate_layers, scored_by
from loquent.decoding.surroundings import Surroundings
from loquent.errors import ArgumentError


class Sourced(NamedTuple):
    """The fields of a `Decoding` that are about its sources."""

    source: Any = None
    shadow: int = 0  # how many tokens the prompts of shadows have


def sources_of(config: GenerationConfig, prompt: NDArray[np.int64], around: Surroundings) -> Sourced:
    """The sources that a config asks for, for one prompt (n,).

    Guidance acts on what DoLa leaves; its negative prompt is scored by the whole model alone, as in transformers.

    Raises:
        ArgumentError: a layer is not there, or a negative prompt goes without a scale.
    """
    sources: list[Source] = []
    if config.dola_layers is not None:
        sources.append(DoLa(candidate_layers(config.dola_layers, around.layers, around.tied)))
    negative, scale = around.negative_prompt, config.guidance_scale
    if negative is not None and scale is None:
        raise ArgumentError(
            "negative_prompt_ids has no effect without guidance_scale. Pass guidance_scale, such as 1.5, or leave "
            "negative_prompt_ids out."
        )
    if scale is None or scale == 1:
        return Sourced(partial(scored_by, tuple(sources)) if sources else None)
    negative = prompt[-1:] if negative is None else negative
    sources.append(Guidance(scale, negative))
    return Sourced(partial(scored_by, tuple(sources)), len(negative))
