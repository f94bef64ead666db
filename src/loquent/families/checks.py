"""The checks that families' configs share; each raises ConfigError with the field, its value and what to do."""

from __future__ import annotations

from loquent.config.base import PretrainedConfig
from loquent.config.rope import RotaryConfig
from loquent.errors import ConfigError
from loquent.parts import ACTIVATIONS, DynamicScaling, Rotary, YarnScaling

_LARGEST = 2**40


def refuse(config: PretrainedConfig, name: str, problem: str) -> ConfigError:
    """The error for a field whose value has a `problem`."""
    return ConfigError(f"{type(config).__name__}: {name}={getattr(config, name)!r} {problem}")


def check_counts(config: PretrainedConfig, *names: str) -> None:
    """The fields are at least 1, where they are not None (which the families read as derived or absent)."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 1 <= value <= _LARGEST:
            raise refuse(config, name, f"is out of range. Use a number from 1 to {_LARGEST:,}.")


def check_divides(config: PretrainedConfig, whole: str, parts: str) -> None:
    """The field `whole` is a multiple of the field `parts`."""
    if getattr(config, whole) % getattr(config, parts):
        raise refuse(config, whole, f"is not a multiple of {parts}={getattr(config, parts)}. Change one of them.")


def check_activation(config: PretrainedConfig, name: str) -> None:
    """The field names an activation function that there is."""
    if getattr(config, name) not in ACTIVATIONS:
        raise refuse(config, name, f"is no activation function that Loquent has: {', '.join(sorted(ACTIVATIONS))}.")


def check_rates(config: PretrainedConfig, *names: str) -> None:
    """The fields are probabilities of dropping something, where they are not None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise refuse(config, name, "is not a dropout rate. Use a number from 0 up to, but not including, 1.")


def check_epsilon(config: PretrainedConfig, name: str) -> None:
    """The field can keep a norm from dividing by zero."""
    if not 0 <= getattr(config, name) < 1:
        raise refuse(config, name, "is not a norm's epsilon. Use a small number, such as 1e-5.")


def check_no_cross_attention(config: PretrainedConfig) -> None:
    """The model does not attend to an encoder, which families of decoders alone cannot."""
    if config.add_cross_attention:
        raise refuse(
            config,
            "add_cross_attention",
            "asks for attention to an encoder, which Loquent does not have for this model. Set it to False; the "
            "cross-attention tensors of a checkpoint are then unexpected.",
        )


def rotary_part(config: RotaryConfig, head_dim: int) -> Rotary:
    """The rotary positions of heads of `head_dim` dimensions, refused where they could not be computed."""
    rotary = config.rotary(head_dim)
    if rotary.theta <= 0 or (isinstance(rotary.scaling, YarnScaling) and rotary.theta == 1):
        raise ConfigError(f"{type(config).__name__}: rope_theta={rotary.theta} is no base of rotary positions.")
    if rotary.dimensions == head_dim and head_dim % 2:
        raise ConfigError(
            f"{type(config).__name__}: rotary positions turn pairs of dimensions, but a head has {head_dim}. "
            "Change the width or the number of heads so that the dimensions of a head are even."
        )
    if isinstance(rotary.scaling, DynamicScaling) and rotary.dimensions <= 2:
        raise ConfigError(
            f"{type(config).__name__}: dynamic rotary scaling needs more than one pair of dimensions, but turns "
            f"{rotary.dimensions} of each head's {head_dim}. Use another rope_type or wider heads."
        )
    return rotary
