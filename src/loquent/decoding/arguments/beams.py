"""From a generation config to a strategy of beams, or a clear refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings, as_tuple
from loquent.decoding.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint, check_constraint
from loquent.decoding.strategies import beam_sampling, beam_search, constrained_beam_search, diverse_beam_search
from loquent.decoding.task import Strategy, Task
from loquent.errors import ArgumentError


def beams_of(config: GenerationConfig, sampled: bool, around: Surroundings) -> Callable[[Task], Strategy] | None:
    """The strategy of beams that a config asks for, None where it asks for none.

    Raises:
        ArgumentError: the config cannot work, or not with this model.
    """
    constrained = config.constraints is not None or config.force_words_ids is not None
    if config.num_beams == 1:
        if constrained:
            raise ArgumentError("constraints and force_words_ids need beams. Pass num_beams above 1.")
        return None
    chosen: dict[str, Any] = {
        "width": config.num_beams,
        "length_penalty": config.length_penalty,
        "early_stopping": config.early_stopping,
    }
    if constrained:
        return partial(constrained_beam_search, constraints=constraints_of(config, around), **chosen)
    if config.num_beam_groups > 1:
        ends = as_tuple(config.eos_token_id)
        filler = config.pad_token_id if config.pad_token_id is not None or not ends else ends[0]
        return partial(
            diverse_beam_search,
            groups=config.num_beam_groups,
            diversity_penalty=config.diversity_penalty,
            filler=filler,
            **chosen,
        )
    return partial(beam_sampling if sampled else beam_search, **chosen)


def constraints_of(config: GenerationConfig, around: Surroundings) -> tuple[Constraint, ...]:
    """`constraints`, then `force_words_ids`, whose words are phrases or lists of alternative ones."""
    constraints = list(config.constraints or ())
    for word in config.force_words_ids or ():
        nested = bool(word) and isinstance(word[0], list)
        try:
            constraints.append(DisjunctiveConstraint(word) if nested else PhrasalConstraint(word))  # type: ignore[arg-type]
        except ArgumentError as error:
            raise ArgumentError(f"force_words_ids has {word!r}, which is no word: {error}") from error
    if not constraints:
        raise ArgumentError("force_words_ids and constraints are empty. Leave them out.")
    for constraint in constraints:
        check_constraint(constraint, around.vocabulary, as_tuple(config.eos_token_id))
    return tuple(constraints)
