"""From a generation config to the sources of scores that it asks for: DoLa and guidance, checked against the model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.decoding.sources import DoLa, Guidance, Source, candidate_layers, scored_by
from loquent.errors import ArgumentError


class Sourced(NamedTuple):
    """The fields of a `Decoding` that are about its sources."""

    source: Any = None
    shadow: int = 0  # how many tokens the prompts of shadows have


def sources_of(config: GenerationConfig, prompt: Sequence[int], around: Surroundings) -> Sourced:
    """The sources that a config asks for, for one prompt.

    Guidance acts on what DoLa leaves; its negative prompt is scored by the whole model alone, as in transformers.

    Raises:
        ArgumentError: a layer is not there, or a negative prompt has tokens that are not.
    """
    sources: list[Source] = []
    if config.dola_layers is not None:
        sources.append(DoLa(candidate_layers(config.dola_layers, around.layers, around.tied)))
    negative, scale = around.negative_prompt, config.guidance_scale
    if scale is None or scale == 1:
        return Sourced(partial(scored_by, tuple(sources)) if sources else None)
    negative = np.array(prompt[-1:], np.int64) if negative is None else negative
    bad = next((token for token in negative.tolist() if not 0 <= token < around.vocabulary), None)
    if bad is not None:
        raise ArgumentError(
            f"negative_prompt_ids has the token {bad}, and the model's vocabulary is 0 to {around.vocabulary - 1}. "
            "Use the model's own tokenizer."
        )
    sources.append(Guidance(scale, negative))
    return Sourced(partial(scored_by, tuple(sources)), len(negative))
