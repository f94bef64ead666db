"""Caches whose older keys and values are kept in a few bits each: our own arithmetic, or a library's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loquent.cache.faces.dynamic import DynamicCache
from loquent.cache.layout import Coding, StoreKind
from loquent.config.caches import QuantizedCacheConfig
from loquent.errors import ArgumentError


class QuantizedCache(DynamicCache):
    """A cache that keeps the last tokens as they are and the older ones in a few bits, as in KIVI (2402.02750).

    Args:
        backend: who codes: "native" (Loquent itself), or a library: "quanto" or "HQQ".
        config: accepted for programs that pass the model's config.
        nbits, axis_key, axis_value, q_group_size, residual_length, compute_dtype, device: the fields of a
            `QuantizedCacheConfig`; None leaves them at their defaults.
        cache_config: such a config, or a dict of its fields, instead of them.

    Raises:
        ArgumentError: a field cannot work, is unknown, or was given in two ways.
    """

    _backend: str | None = None  # of a class that is for one library

    def __init__(
        self,
        backend: str | None = None,
        config: Any = None,
        nbits: int | None = None,
        axis_key: int | None = None,
        axis_value: int | None = None,
        q_group_size: int | None = None,
        residual_length: int | None = None,
        *,
        compute_dtype: Any = None,
        device: Any = None,
        cache_config: QuantizedCacheConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        fields = {
            "nbits": nbits,
            "axis_key": axis_key,
            "axis_value": axis_value,
            "q_group_size": q_group_size,
            "residual_length": residual_length,
            "compute_dtype": compute_dtype,
            "device": device,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if cache_config is not None:
            if given:
                raise ArgumentError(f"{sorted(given)} and cache_config say the same. Pass one of them.")
            known = cache_config.to_dict() if isinstance(cache_config, QuantizedCacheConfig) else dict(cache_config)
            given = {**known, "backend": self._agreed(known.get("backend"), backend)}
        else:
            given["backend"] = self._agreed(None, backend)
        self.config = QuantizedCacheConfig.from_dict(given)
        self.kind = StoreKind(coding=coding_of(self.config))

    def _agreed(self, configured: str | None, named: str | None) -> str:
        """Who codes, by the class, the argument or the config; "native" in a config may be its default."""
        asked = [name for name in (self._backend, named, configured) if name is not None]
        libraries = {name.lower(): name for name in map(str, asked) if name.lower() != "native"}
        if len(libraries) > 1 or (libraries and str(named).lower() == "native"):
            raise ArgumentError(f"backend={asked} are several for a {type(self).__name__}. Pass one.")
        return next(iter(libraries.values()), "native")


class QuantoQuantizedCache(QuantizedCache):
    """A quantized cache that optimum-quanto codes, with 2 or 4 bits; arguments are those of `QuantizedCache`."""

    _backend = "quanto"


class HQQQuantizedCache(QuantizedCache):
    """A quantized cache that HQQ codes; arguments are those of `QuantizedCache`."""

    _backend = "HQQ"


def coding_of(config: QuantizedCacheConfig) -> Coding:
    """What a config's fields mean for a store."""
    return Coding(
        bits=config.nbits,
        group=config.q_group_size,
        residual=config.residual_length,
        library=None if config.coder == "native" else config.coder,
        axis_key=config.axis_key,
        axis_value=config.axis_value,
    )


def config_of(coding: Coding) -> QuantizedCacheConfig:
    """The config whose fields mean this coding."""
    return QuantizedCacheConfig(
        backend=coding.library or "native",
        nbits=coding.bits,
        axis_key=coding.axis_key,
        axis_value=coding.axis_value,
        q_group_size=coding.group,
        residual_length=coding.residual,
    )
