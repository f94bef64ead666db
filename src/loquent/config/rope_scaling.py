"""The keys of each rotary scaling in `rope_parameters`, checked and read into the parts that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from sys import float_info
from typing import Any

from loquent.errors import ConfigError
from loquent.parts import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RotaryScaling,
    YarnScaling,
)

ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class _Keys:
    """The values of one `rope_parameters`, each with its check; `owner` is the config class, for messages."""

    owner: str
    values: Mapping[str, Any]
    positions: int
    dimensions: int | None

    def error(self, name: str, wanted: str) -> ConfigError:
        said = f"{name}={self.values[name]!r}" if name in self.values else f"{name} is missing, but"
        kind = self.values["rope_type"]
        return ConfigError(f"{self.owner}: rotary scaling of type {kind!r}: {said} {wanted}.")

    def number(self, name: str) -> float:
        value = self.values.get(name)
        if not _is_positive(value):
            raise self.error(name, "must be a number above 0")
        return float(value)  # type: ignore[arg-type]  # a number, as was checked

    def optional(self, name: str) -> float | None:
        return None if self.values.get(name) is None else self.number(name)

    def optional_original(self) -> int | None:
        value = self.values.get(ORIGINAL)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self.error(ORIGINAL, "must be a number of positions")
        return value

    def factors(self, name: str) -> tuple[float, ...]:
        value = self.values.get(name)
        if not isinstance(value, list | tuple) or not all(_is_positive(item) for item in value):
            raise self.error(name, "must be a list of numbers above 0")
        # One for each pair; an odd dimension at the end counts as one.
        if self.dimensions is not None and len(value) != (self.dimensions + 1) // 2:
            raise ConfigError(
                f"{self.owner}: rotary scaling of type 'longrope': {name} has {len(value)} entries, but "
                f"{self.dimensions} rotary dimensions need {(self.dimensions + 1) // 2}."
            )
        return tuple(float(item) for item in value)


def rope_type(owner: str, scaling: Mapping[str, Any]) -> str:
    """The type that a `rope_scaling` names, under its present or its older key.

    Raises:
        ConfigError: the type is none that there is.
    """
    found = scaling.get("rope_type") or scaling.get("type") or "default"
    if not isinstance(found, str) or found not in _READERS:
        raise ConfigError(
            f"{owner}: rope_type={found!r} is not a rotary scaling that Loquent has: {', '.join(_READERS)}."
        )
    return found


def read_scaling(
    owner: str, parameters: Mapping[str, Any], positions: int, dimensions: int | None = None
) -> RotaryScaling | None:
    """The scaling that `parameters` describe, or None for plain rotary positions.

    Args:
        owner: the config class, for messages.
        parameters: the rotary fields in the 5.x spelling.
        positions: `max_position_embeddings`.
        dimensions: how many dimensions of a head are turned, where that is to be checked too.

    Raises:
        ConfigError: the type is unknown, or a key is missing or of the wrong kind.
    """
    return _READERS[rope_type(owner, parameters)](_Keys(owner, parameters, positions, dimensions))


def _is_positive(value: Any) -> bool:
    # An integer that no float can hold is none either.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= float_info.max


def _linear(keys: _Keys) -> LinearScaling:
    return LinearScaling(keys.number("factor"))


def _dynamic(keys: _Keys) -> DynamicScaling:
    return DynamicScaling(keys.number("factor"), keys.positions)


def _yarn(keys: _Keys) -> YarnScaling:
    factor = keys.number("factor")
    original = keys.optional_original()
    truncate = keys.values.get("truncate", True)
    if not isinstance(truncate, bool):
        raise keys.error("truncate", "must be true or false")
    fast, slow = keys.optional("beta_fast") or 32.0, keys.optional("beta_slow") or 1.0
    if fast < slow:
        raise keys.error("beta_fast", f"must not be below beta_slow, which is {slow}")
    return YarnScaling(
        factor=_ratio(keys, original) or factor,
        original_positions=original or keys.positions,
        beta_fast=fast,
        beta_slow=slow,
        attention_factor=keys.optional("attention_factor"),
        mscale=keys.optional("mscale"),
        mscale_all_dim=keys.optional("mscale_all_dim"),
        truncate=truncate,
    )


def _longrope(keys: _Keys) -> LongRopeScaling:
    factor, original = keys.optional("factor"), keys.optional_original()
    if factor is None and original is None:
        raise keys.error(ORIGINAL, "or factor must say how far the model's positions were extended")
    return LongRopeScaling(
        short_factor=keys.factors("short_factor"),
        long_factor=keys.factors("long_factor"),
        original_positions=original or keys.positions,
        factor=_ratio(keys, original) or factor,
        attention_factor=keys.optional("attention_factor"),
    )


def _llama3(keys: _Keys) -> Llama3Scaling:
    low, high = keys.number("low_freq_factor"), keys.number("high_freq_factor")
    if high <= low:
        raise keys.error("high_freq_factor", f"must be above low_freq_factor, which is {low}")
    original = keys.optional_original()
    if original is None:
        raise keys.error(ORIGINAL, "must be a number of positions")
    return Llama3Scaling(keys.number("factor"), low, high, original)


def _ratio(keys: _Keys, original: int | None) -> float | None:
    """How far the positions were extended, where the config says from where."""
    return None if original in (None, keys.positions) else keys.positions / original


_READERS: dict[str, Callable[[_Keys], RotaryScaling | None]] = {
    "default": lambda keys: None,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
}
