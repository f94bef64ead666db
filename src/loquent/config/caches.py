"""What a quantized key-value cache is made with: `cache_config` of a generation config; it holds no keys and values.

Names are transformers' (https://huggingface.co/docs/transformers/internal/generation_utils#cache), defaults too but for
the backend, which is Loquent's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, TypeVar

from loquent.errors import ArgumentError, hint

Q = TypeVar("Q", bound="QuantizedCacheConfig")

_BITS = {"native": (1, 2, 4, 8), "quanto": (2, 4), "hqq": (1, 2, 3, 4, 8)}
_AXES = {"native": (0,), "quanto": (0, -1), "hqq": (0, 1)}
_LARGEST_GROUP, _LARGEST_RESIDUAL = 1024, 2**31 - 1


@dataclass
class QuantizedCacheConfig:
    """A cache whose older keys and values are kept in a few bits each, as in KIVI (2402.02750): docs/memory.md.

    Args:
        backend: who codes them: "native", or a library: "quanto", "HQQ" ("hqq" is the same).
        nbits: bits of a number: 1, 2, 4 or 8; with quanto 2 or 4; with HQQ 1, 2, 3, 4 or 8.
        axis_key, axis_value: along which axis a library makes groups, 0 or -1 (quanto), 0 or 1 (HQQ). The native
            backend groups keys by channel and values by token, and has no other way.
        q_group_size: how many numbers share a scale, and tokens a page: a multiple of 16, at most 1024.
        residual_length: how many of the last tokens are seen as they are, at least.
        compute_dtype: what decoded numbers are computed with; None: float32 with the native backend, the model's with
            a library, and no other works.
        device: where that happens; None: where the model is, and nowhere else.

    None stands for a default.

    Raises:
        ArgumentError: a value cannot work.
    """

    backend: str = "native"
    nbits: int = 4
    axis_key: int = 0
    axis_value: int = 0
    q_group_size: int = 64
    residual_length: int = 128
    compute_dtype: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is None:
                setattr(self, field.name, field.default)
        # A torch.dtype and a torch.device, perhaps.
        self.compute_dtype = None if self.compute_dtype is None else str(self.compute_dtype).removeprefix("torch.")
        self.device = None if self.device is None else str(self.device)
        self.validate()

    def validate(self) -> None:
        """Checks every value.

        Raises:
            ArgumentError: names the field, its value and what it may be.
        """
        who = self.coder
        if self.nbits not in _BITS[who]:
            raise self._refuse("nbits", f"one of {_listed(_BITS[who])}, which backend={self.backend!r} has")
        for name in ("axis_key", "axis_value"):
            if getattr(self, name) in _AXES[who]:
                continue
            if who == "native":
                raise self._refuse(
                    name, 'no axis: backend="native" groups keys by channel and values by token, as KIVI does'
                )
            raise self._refuse(name, f"one of {_listed(_AXES[who])}, which backend={self.backend!r} has")
        size = _count(self.q_group_size)
        if not 16 <= size <= _LARGEST_GROUP or size % 16:
            raise self._refuse("q_group_size", f"a multiple of 16, at most {_LARGEST_GROUP}")
        if not 1 <= _count(self.residual_length) <= _LARGEST_RESIDUAL:
            raise self._refuse("residual_length", "a count that is 1 or more: a token always sees itself as it is")

    @property
    def coder(self) -> str:
        """The backend in lower case: "native", "quanto" or "hqq".

        Raises:
            ArgumentError: it is none of these.
        """
        who = str(self.backend).lower()
        if who not in _BITS:
            raise self._refuse("backend", '"native", "quanto" or "HQQ"')
        return who

    @classmethod
    def from_dict(cls: type[Q], config_dict: Mapping[str, Any], **changes: Any) -> Q:
        """The config of a dictionary, with `changes` in place of what it says.

        Raises:
            ArgumentError: a name is of no field, or a value cannot work.
        """
        values = {**config_dict, **changes}
        known = {field.name for field in fields(cls)}
        for name in sorted(map(str, values.keys() - known)):
            near = hint(name, known) or f" It has {', '.join(sorted(known))}."
            raise ArgumentError(f"cache_config: {cls.__name__} has no field {name!r}.{near}")
        return cls(**values)

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Sets the fields that it has, and returns the arguments that name none.

        Raises:
            ArgumentError: a value cannot work. The config is then as it was before.
        """
        known = {name: value for name, value in kwargs.items() if name in {field.name for field in fields(self)}}
        made = type(self)(**{**vars(self), **known})
        vars(self).update(vars(made))
        return {name: value for name, value in kwargs.items() if name not in known}

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values, without those that are None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def to_json_string(self) -> str:
        """The fields as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def _refuse(self, name: str, wanted: str) -> ArgumentError:
        return ArgumentError(f"cache_config: {name}={getattr(self, name)!r:.80} cannot work. Pass {wanted}.")


def plain_fields(value: Any) -> Any:
    """A `cache_config` as a dictionary that JSON can hold, where it is a config or a dictionary; else as it is."""
    stored = value.to_dict() if hasattr(value, "to_dict") else value
    if not isinstance(stored, Mapping):
        return value
    plain = dict(stored)
    for name in ("compute_dtype", "device"):
        if plain.get(name) is not None:
            plain[name] = str(plain[name]).removeprefix("torch.")
    return {name: os.fspath(item) if isinstance(item, os.PathLike) else item for name, item in plain.items()}


def _count(value: Any) -> int:
    """An integer, or 0 for what is none."""
    return 0 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)


def _listed(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
