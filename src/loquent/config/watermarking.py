"""What a watermark in generated text is made with: `watermarking_config` of a generation config; it marks nothing.

Names and defaults are transformers'. A config says all that a detector needs, so it is kept as secret as the mark is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, TypeVar

from loquent.errors import ArgumentError

C = TypeVar("C", bound="BaseWatermarkingConfig")

_SEED_LIMIT = 1 << 63


@dataclass(frozen=True)
class BaseWatermarkingConfig:
    """What the configs have in common: they are compared, printed and stored as dictionaries."""

    @classmethod
    def from_dict(cls: type[C], config_dict: Mapping[str, Any], **changes: Any) -> C:
        """The config of a dictionary, with `changes` in place of what it says.

        Raises:
            ArgumentError: a name is of no field, or a value cannot work.
        """
        values = {**config_dict, **changes}
        known = {field.name for field in fields(cls)}
        unknown = ", ".join(map(repr, sorted(values.keys() - known)))
        if unknown:
            raise ArgumentError(
                f"watermarking_config: {cls.__name__} has no field {unknown}. It has {', '.join(sorted(known))}."
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ArgumentError(
                f"watermarking_config: {cls.__name__} cannot be made of {dict(values)!r:.120}: {error}."
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values."""
        return asdict(self)

    def to_json_string(self) -> str:
        """The fields as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def _refuse(self, name: str, wanted: str) -> ArgumentError:
        return ArgumentError(f"watermarking_config: {name}={getattr(self, name)!r:.80} cannot work. Pass {wanted}.")

    def _check_integer(self, name: str, least: int, most: int) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
            raise self._refuse(name, f"an integer from {least} to {most}")


@dataclass(frozen=True)
class WatermarkingConfig(BaseWatermarkingConfig):
    """A green list: a share of the vocabulary, picked anew by what was written before, gets a bonus.

    Kirchenbauer et al., 2023, arXiv:2306.04634. What marks with one config is found with an equal one; our lists are
    those that transformers picks on a CPU.

    Args:
        greenlist_ratio: the share of the vocabulary that is green, between 0 and 1.
        bias: what is added to the logits of green tokens.
        hashing_key: the secret.
        seeding_scheme: "lefthash" picks the list by the last token (algorithm 2); "selfhash" also by the token that it
            judges (algorithm 3), for the 40 best tokens, which takes 40 times as long.
        context_width: how many tokens "selfhash" looks at, the judged one counted; nothing is marked before there are
            as many.

    Raises:
        ArgumentError: a value cannot work.
    """

    greenlist_ratio: float = 0.25
    bias: float = 2.0
    hashing_key: int = 15485863
    seeding_scheme: str = "lefthash"
    context_width: int = 1

    def __post_init__(self) -> None:
        ratio: Any = self.greenlist_ratio
        bias: Any = self.bias
        if not isinstance(ratio, Real) or not 0 < float(ratio) < 1:
            raise self._refuse("greenlist_ratio", "a number above 0 and below 1")
        if not isinstance(bias, Real) or not abs(float(bias)) < float("inf"):
            raise self._refuse("bias", "a number")
        if self.seeding_scheme not in ("lefthash", "selfhash"):
            raise self._refuse("seeding_scheme", '"lefthash" or "selfhash"')
        self._check_integer("hashing_key", 0, _SEED_LIMIT - 1)
        self._check_integer("context_width", 1, 1 << 20)


@dataclass(frozen=True)
class SynthIDTextWatermarkingConfig(BaseWatermarkingConfig):
    """SynthID: a tournament between tokens by numbers that depend on what was written before.

    Dathathri et al., 2024, https://www.nature.com/articles/s41586-024-08025-4. On average over the keys it leaves the
    distribution of the text as it is.

    Args:
        ngram_len: how many tokens give a number, the judged one counted.
        keys: the secret, a number for each layer of the tournament.
        context_history_size: how many contexts back one is looked for that was marked before; it is not marked again.
        sampling_table_seed, sampling_table_size: of the table from which the zeros and ones come.
        skip_first_ngram_calls: leave the first `ngram_len - 1` tokens unmarked.
        debug_mode: mark a uniform distribution in place of the model's.

    Raises:
        ArgumentError: a value cannot work.
    """

    ngram_len: int
    keys: tuple[int, ...]
    context_history_size: int = 1024
    sampling_table_seed: int = 0
    sampling_table_size: int = 2**16
    skip_first_ngram_calls: bool = False
    debug_mode: bool = False

    def __post_init__(self) -> None:
        given: Any = self.keys
        keys: tuple[Any, ...] = tuple(given) if isinstance(given, list | tuple) else ()
        if not keys or any(
            isinstance(key, bool) or not isinstance(key, Integral) or not -_SEED_LIMIT <= int(key) < _SEED_LIMIT
            for key in keys
        ):
            raise self._refuse("keys", "a list of at least one integer of 64 bits")
        object.__setattr__(self, "keys", keys)
        self._check_integer("ngram_len", 2, 1 << 20)
        self._check_integer("context_history_size", 0, 1 << 30)
        self._check_integer("sampling_table_size", 1, 1 << 24)
        self._check_integer("sampling_table_seed", 0, _SEED_LIMIT - 1)

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values."""
        return super().to_dict() | {"keys": list(self.keys)}


def watermarking_config(value: Any) -> BaseWatermarkingConfig | None:
    """A config from what a caller or a file has: one of these, an object with `to_dict`, a dictionary, or None.

    Raises:
        ArgumentError: it is none of them, or a value cannot work.
    """
    if value is None or isinstance(value, BaseWatermarkingConfig):
        return value
    stored = value.to_dict() if hasattr(value, "to_dict") else value
    if not isinstance(stored, Mapping):
        raise ArgumentError(
            f"watermarking_config={value!r:.80} is a {type(value).__name__}. Pass a WatermarkingConfig, a "
            "SynthIDTextWatermarkingConfig, or the fields of one as a dictionary."
        )
    kind = SynthIDTextWatermarkingConfig if stored.keys() & {"ngram_len", "keys"} else WatermarkingConfig
    return kind.from_dict(stored)
