"""What makes the fields of a generation config impossible or contradictory; says so, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from loquent.errors import ArgumentError

Fields = Mapping[str, Any]

_CACHES = (
    *("dynamic", "static", "paged", "sliding_window", "quantized", "offloaded", "offloaded_static"),
    *("dynamic_full", "hybrid", "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked"),
)
_DEEPEST = 48


def _at_least(least: float, unit: str = "a number") -> tuple[Callable[[Any], bool], str]:
    return lambda value: value >= least, f"{unit} that is {least} or more"


_MOST = 2**31 - 1
_COUNT: tuple[Callable[[Any], bool], str] = (
    lambda value: 1 <= value <= _MOST,
    f"a count that is 1 or more, and at most {_MOST}",
)
_COUNT_OR_NONE = _at_least(0, "a count")
_PROBABILITY: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_SHARE: tuple[Callable[[Any], bool], str] = (lambda value: 0 < value <= 1, "a number above 0 and up to 1")
_CUTOFF: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 1, "a number from 0 and below 1")
_TOKEN: tuple[Callable[[Any], bool], str] = (lambda value: abs(value) < 1 << 63, "a token id")
_POSITIVE: tuple[Callable[[Any], bool], str] = (lambda value: value > 0, "a number above 0")

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_length": _COUNT,
    "max_new_tokens": _COUNT,
    "min_length": _COUNT_OR_NONE,
    "min_new_tokens": _COUNT_OR_NONE,
    "max_time": _POSITIVE,
    "num_beams": _COUNT,
    "num_beam_groups": _COUNT,
    "num_return_sequences": _COUNT,
    "penalty_alpha": _PROBABILITY,
    "prefill_chunk_size": _COUNT,
    "max_cache_len": _COUNT,
    "seed": _COUNT_OR_NONE,
    # It, and what is divided by it, have to be numbers in float32.
    "temperature": (lambda value: value == 0 or 1e-30 <= value <= 1e30, "0, or a number from 1e-30 to 1e30"),
    "top_k": (lambda value: value >= 0, "a count, or 0 or None to keep every token"),
    "top_p": _SHARE,
    "min_p": _PROBABILITY,
    "typical_p": _SHARE,
    "epsilon_cutoff": _CUTOFF,
    "eta_cutoff": _CUTOFF,
    "diversity_penalty": _at_least(0),
    # Powers of any length are numbers then.
    "length_penalty": (lambda value: -32 <= value <= 32, "a number from -32 to 32"),
    "repetition_penalty": _POSITIVE,
    "encoder_repetition_penalty": _POSITIVE,
    "no_repeat_ngram_size": _COUNT_OR_NONE,
    "encoder_no_repeat_ngram_size": _COUNT_OR_NONE,
    "exponential_decay_length_penalty": (
        lambda value: value[0] >= 0 and value[1] > 0,
        "a count of tokens and a factor above 0, such as (20, 1.05)",
    ),
    "top_h": _SHARE,
    "top_n_sigma": _POSITIVE,
    "allowed_token_ids": (bool, "at least one token"),
    "dry_multiplier": _at_least(0),
    "dry_base": _at_least(1),
    "dry_allowed_length": _COUNT,
    "dry_range": _COUNT_OR_NONE,
    "xtc_probability": _PROBABILITY,
    "xtc_threshold": _PROBABILITY,
    "mirostat_mode": (lambda value: value in (0, 2), "0 for none, or 2 for mirostat 2; there is no version 1 here"),
    "mirostat_tau": _POSITIVE,
    "mirostat_eta": _at_least(0),
    "num_assistant_tokens": _COUNT,
    "assistant_confidence_threshold": _PROBABILITY,
    "prompt_lookup_num_tokens": _COUNT,
    "max_matching_ngram_size": _COUNT,
    "assistant_early_exit": _COUNT,
    "pad_token_id": _TOKEN,
    "bos_token_id": _TOKEN,
    "eos_token_id": (
        lambda value: all(abs(token) < 1 << 63 for token in (value if isinstance(value, list) else [value])),
        "a token id, or a list of them",
    ),
    "cache_implementation": (lambda value: value in _CACHES, f"one of {', '.join(_CACHES)}"),
}

# The values with which a field has no effect.
_SAMPLING_ONLY: dict[str, tuple[Any, ...]] = {
    "temperature": (1.0, 0.0),
    "top_k": (None, 0, 1, 50),
    "top_p": (1.0,),
    "min_p": (None, 0.0),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (None,),
    "top_n_sigma": (None,),
    "xtc_probability": (0.0,),
    "mirostat_mode": (0,),
}
SHAPE_DRAWS = frozenset(_SAMPLING_ONLY)
"""The fields that have an effect on random choices alone."""

_BEAMS_ONLY: dict[str, tuple[Any, ...]] = {
    "early_stopping": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "length_penalty": (1.0,),
}


def check_values(fields: Fields) -> None:
    """Refuses a value that cannot work whatever the others are.

    Raises:
        ArgumentError: names the argument, the value and what it may be.
    """
    for name, (fits, wanted) in _RANGES.items():
        value = fields[name]
        if value is not None and not fits(value):
            raise ArgumentError(f"{name}={value!r} cannot work. Pass {wanted}.")
    _check_depth(fields["response_format"])


def _check_depth(schema: Any) -> None:
    """Refuses a schema that what copies, writes and compiles it would recurse into too deeply."""
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ArgumentError(
                f"response_format is nested more than {_DEEPEST} deep. Name parts of it in $defs and refer to them "
                "by $ref."
            )
        below = [item.values() if isinstance(item, Mapping) else item for item in level if item]
        level = [inner for items in below for inner in items if isinstance(inner, Mapping | list | tuple)]


def check_conflicts(fields: Fields, set_at: Mapping[str, int]) -> None:
    """Refuses what was asked for and contradicts something that was asked for no later.

    Args:
        fields: the config's fields.
        set_at: for each field that the caller set, the number of the statement that set it last.

    Raises:
        ArgumentError: names both arguments, their values and the remedy.
    """
    _check_beams(fields)
    if set_at.keys() & {"num_return_sequences", "num_beams", "do_sample"}:
        _check_greedy_sequences(fields)
    _check_unused(fields, "do_sample", _unused_without_sampling(fields), set_at)
    _check_unused(fields, "num_beams", _unused_without_beams(fields), set_at)


def check_saved(fields: Fields, explicit: Collection[str]) -> None:
    """Refuses to save what was asked for but the config as a whole does not use; what a file brought is kept as it is.

    Raises:
        ArgumentError: names both arguments, their values and the remedy.
    """
    _check_beams(fields)
    steps = dict.fromkeys(explicit, 1)
    _check_unused(fields, "do_sample", _unused_without_sampling(fields), steps | {"do_sample": 1})
    _check_unused(fields, "num_beams", _unused_without_beams(fields), steps | {"num_beams": 1})


def _unused_without_sampling(fields: Fields) -> list[str]:
    if fields["do_sample"]:
        return []
    contrastive = fields["penalty_alpha"] is not None
    return [
        name
        for name, neutral in _SAMPLING_ONLY.items()
        if fields[name] not in neutral and not (contrastive and name == "top_k")
    ]


def _unused_without_beams(fields: Fields) -> list[str]:
    if fields["num_beams"] > 1:
        return []
    return [name for name, neutral in _BEAMS_ONLY.items() if fields[name] not in neutral]


def _check_unused(fields: Fields, switch: str, unused: list[str], set_at: Mapping[str, int]) -> None:
    for name in unused:
        # What was set after it was asked for overrides it; what was set before it contradicts it.
        if switch in set_at and name in set_at and set_at[name] >= set_at[switch]:
            wanted = "do_sample=True" if switch == "do_sample" else "num_beams above 1"
            raise ArgumentError(
                f"{name}={fields[name]!r} has no effect with {switch}={fields[switch]!r}. Pass {wanted}, or leave "
                f"{name} out."
            )


def _check_greedy_sequences(fields: Fields) -> None:
    if fields["num_beams"] == 1 and not fields["do_sample"] and fields["num_return_sequences"] > 1:
        raise ArgumentError(
            f"num_return_sequences={fields['num_return_sequences']} with greedy search, which finds one. Pass "
            "do_sample=True, or num_beams of as many."
        )


def _check_beams(fields: Fields) -> None:
    beams, groups, sequences = fields["num_beams"], fields["num_beam_groups"], fields["num_return_sequences"]
    constrained = fields["constraints"] is not None or fields["force_words_ids"] is not None
    if beams > 1 and sequences > beams:
        raise ArgumentError(
            f"num_return_sequences={sequences} is more than num_beams={beams} can return. Pass at least as many beams."
        )
    if beams > 1 and beams % groups:
        raise ArgumentError(f"num_beams={beams} cannot be split into num_beam_groups={groups}. Pass a multiple of it.")
    if beams > 1 and groups > 1 and fields["diversity_penalty"] == 0:
        raise ArgumentError(
            f"num_beam_groups={groups} with diversity_penalty=0.0 makes equal groups. Pass a diversity_penalty above 0."
        )
    if beams > 1 and groups > 1 and fields["do_sample"]:
        raise ArgumentError(f"do_sample=True does not go with num_beam_groups={groups}. Pass do_sample=False.")
    if constrained and fields["do_sample"]:
        raise ArgumentError("do_sample=True does not go with constraints or force_words_ids. Pass do_sample=False.")
    if constrained and groups > 1:
        raise ArgumentError(f"num_beam_groups={groups} does not go with constraints or force_words_ids. Pass 1.")
