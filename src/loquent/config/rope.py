"""The fields of rotary positions in both spellings of config files, read into one; computes no frequency.

transformers 4.x writes `rope_theta`, `rope_scaling` and `partial_rotary_factor`; 5.x writes them as one dict,
`rope_parameters`. `RotaryConfig` accepts either, refuses contradictions, and saves both, so that each version reads
what it knows. The keys are those of
https://huggingface.co/docs/transformers/internal/rope_utils.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from loquent.config.base import PretrainedConfig
from loquent.config.rope_scaling import ORIGINAL, read_scaling, rope_type
from loquent.config.spelling import contradiction
from loquent.errors import ConfigError
from loquent.parts import Rotary

# What 5.x keeps in the dict and 4.x beside it.
_HOISTED = ("rope_theta", "partial_rotary_factor")


class RotaryConfig(PretrainedConfig, shared=True):
    """The base of configs with rotary positions.

    A family declares `rope_theta` and `rope_scaling` again where they stand in its positional order, or names its own
    fields for them in `attribute_map` ("rope_theta": "rotary_emb_base"), and has `max_position_embeddings`.

    Raises:
        ConfigError: the scaling's type is unknown, lacks a key, has a key of the wrong kind, or two spellings
            contradict each other.
    """

    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    partial_rotary_factor: float = 1.0
    original_max_position_embeddings: int | None = None

    @classmethod
    def canonical(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        fields = super().canonical(given)
        spelled_new = "rope_parameters" in fields
        parameters = _mapping(cls.__name__, "rope_parameters", fields.pop("rope_parameters", None))
        scaling = _mapping(cls.__name__, "rope_scaling", fields.get("rope_scaling"))
        for source, values in (("rope_parameters", parameters), ("rope_scaling", scaling)):
            for name in _HOISTED:
                if values.get(name) is not None:
                    own = cls.attribute_map.get(name, name)
                    if own in fields and fields[own] != values[name]:
                        raise contradiction(cls.__name__, own, fields[own], f"{source}[{name!r}]", values[name])
                    fields[own] = values[name]
        scaling, rest = _without_hoisted(scaling), _without_hoisted(parameters)
        if "rope_scaling" in fields:
            fields["rope_scaling"] = scaling or None
        if spelled_new:
            if scaling and not _agree(scaling, rest, fields):
                raise contradiction(cls.__name__, "rope_scaling", scaling, "rope_parameters", dict(parameters))
            # 5.x reads a null rope_scaling as unset, and says in rope_parameters what it means.
            fields["rope_scaling"] = scaling or (None if rest in ({}, {"rope_type": "default"}) else rest)
        return fields

    def _check(self) -> None:
        super()._check()
        read_scaling(type(self).__name__, self._rope_parameters(), self._positions())

    @property
    def rope_parameters(self) -> Mapping[str, Any]:
        """The rotary fields as 5.x spells them: `rope_type`, `rope_theta` and the scaling's keys. A read-only view;
        assign a dict to the attribute to change them."""
        return MappingProxyType(self._rope_parameters())

    def rotary(self, head_dim: int) -> Rotary:
        """The rotary positions that this config describes, for heads of `head_dim` dimensions.

        Where a config gives both a `factor` and the original length, yarn's and longrope's factor is the ratio of
        `max_position_embeddings` to that length, as 4.55.4 has it, unless they are equal, as 5.x writes where no
        original length was given.

        Raises:
            ConfigError: the scaling is not valid, or longrope's lists do not have an entry for each pair of
                dimensions.
        """
        owner = type(self).__name__
        dimensions = int(head_dim * self._hoisted("partial_rotary_factor"))
        if not 1 <= dimensions <= head_dim:
            raise ConfigError(
                f"{owner}: partial_rotary_factor={self._hoisted('partial_rotary_factor')!r} leaves {dimensions} of "
                f"{head_dim} dimensions to turn. Use a value above 0 and up to 1."
            )
        scaling = read_scaling(owner, self._rope_parameters(), self._positions(), dimensions)
        return Rotary(dimensions, float(self._hoisted("rope_theta")), self._positions(), scaling)

    def _hoisted(self, name: str) -> Any:
        return self.__dict__[self.attribute_map.get(name, name)]

    def _positions(self) -> int:
        # Every family with rotary positions has the field, under this name or an alias.
        name = self.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        return int(self.__dict__[name])

    def _rope_parameters(self) -> dict[str, Any]:
        parameters = {key: value for key, value in (self.rope_scaling or {}).items() if key != "type"}
        parameters["rope_type"] = rope_type(type(self).__name__, self.rope_scaling or {})
        parameters["rope_theta"] = self._hoisted("rope_theta")
        if "partial_rotary_factor" in self.attribute_map or self._hoisted("partial_rotary_factor") != 1:
            parameters["partial_rotary_factor"] = self._hoisted("partial_rotary_factor")
        beside = self.original_max_position_embeddings
        if beside is not None and parameters["rope_type"] in {"llama3", "yarn", "longrope"}:
            if parameters.get(ORIGINAL) not in (None, beside):
                raise contradiction(type(self).__name__, ORIGINAL, beside, "rope_scaling", self.rope_scaling)
            parameters[ORIGINAL] = beside
        return parameters

    def _spelled(self) -> dict[str, Any]:
        parameters = self._rope_parameters()
        fields = super()._spelled() | {"rope_parameters": parameters}
        if parameters["rope_type"] == "longrope" and ORIGINAL in parameters:
            # 4.x looks for it only here.
            fields[ORIGINAL] = parameters[ORIGINAL]
        return fields

    def to_dict(self) -> dict[str, Any]:
        fields = super().to_dict()
        # A rope_scaling that was read with theta in it is written so again, with theta as it is now.
        scaling = fields["rope_scaling"] or {}
        scaling.update({name: self._hoisted(name) for name in _HOISTED if scaling.get(name) is not None})
        return fields


def _mapping(owner: str, name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{owner}: {name}={value!r} is of type {type(value).__name__}, but dict or None is expected.")
    return dict(value)


def _without_hoisted(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _HOISTED}


def _agree(old: dict[str, Any], new: dict[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether both spellings say the same, where 5.x has `rope_type` for `type` and the original length in the dict."""

    def plain(values: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in values.items() if key not in {"type", "rope_type", ORIGINAL}}
        return kept | {"rope_type": values.get("rope_type") or values.get("type") or "default"}

    originals = {values[ORIGINAL] for values in (old, new, fields) if isinstance(values.get(ORIGINAL), int)}
    return plain(old) == plain(new) and len(originals) <= 1
