"""From a generation config to how a request's keys and values are kept, or a clear refusal; it opens no store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loquent.cache import PLAIN, Coding, StoreKind
from loquent.cache.faces import Cache, QuantizedCache
from loquent.cache.faces.quantized import coding_of
from loquent.config.caches import QuantizedCacheConfig
from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.errors import ArgumentError

# Here a request's pages are set aside before it starts, and windows free theirs, whatever the store is called.
_PLAIN = (None, "dynamic", "dynamic_full", "static", "paged", "hybrid", "hybrid_chunked")
_OFFLOADED = ("offloaded", "offloaded_static", "offloaded_hybrid", "offloaded_hybrid_chunked")


def store_of(config: GenerationConfig, around: Surroundings) -> StoreKind:
    """The kind of store that a config asks for by `cache_implementation`, `cache_config` and `offload_folder`.

    Raises:
        ArgumentError: they contradict one another, or cannot work with this model.
    """
    if around.store is not None:
        return around.store
    name = config.cache_implementation
    if name == "quantized":
        _refuse_unused(config, "offload_folder", "pages in a file go with cache_implementation='offloaded'")
        return StoreKind(coding=_coding(config.cache_config or {}, around))
    if name in _OFFLOADED:
        return StoreKind(offloaded=True, folder=_folder(config))
    if name == "sliding_window" and not around.has_windows:
        raise ArgumentError(
            "cache_implementation='sliding_window' needs layers with a window, and this model's see every token. Leave "
            "it out. (Where there are windows, pages behind them are always freed.)"
        )
    if name != "sliding_window" and name not in _PLAIN:
        raise ArgumentError(f"cache_implementation={name!r} is unknown. Leave it out.")
    for field in ("cache_config", "offload_folder"):
        wanted = "'quantized' or 'offloaded'" if field == "cache_config" else "'offloaded'"
        _refuse_unused(config, field, f"it goes with cache_implementation={wanted}")
    return PLAIN


def store_of_cache(cache: Cache, config: GenerationConfig, around: Surroundings) -> StoreKind:
    """The kind of store that a cache, passed as `past_key_values`, stands for.

    Raises:
        ArgumentError: the config asks for a kind as well, or the cache cannot work with this model.
    """
    if config.cache_implementation is not None and "cache_implementation" in config.explicit:
        raise ArgumentError(
            f"cache_implementation={config.cache_implementation!r} and past_key_values, a {type(cache).__name__}, both "
            "say how keys and values are kept. Pass one of them."
        )
    if isinstance(cache, QuantizedCache):
        _check_place(cache.config, around)
    return cache.kind


def _refuse_unused(config: GenerationConfig, name: str, remedy: str) -> None:
    value = getattr(config, name)
    if value and config.stands(name, beside="cache_implementation"):
        raise ArgumentError(
            f"{name}={value!r:.80} has no effect with cache_implementation={config.cache_implementation!r}: {remedy}. "
            "Leave one of them out."
        )


def _coding(given: dict[str, Any], around: Surroundings) -> Coding:
    """What the fields of a `QuantizedCacheConfig` mean for a model."""
    config = QuantizedCacheConfig.from_dict(given)
    _check_place(config, around)
    return coding_of(config)


def _check_place(config: QuantizedCacheConfig, around: Surroundings) -> None:
    """Refuses a type or a device that are not those which decoded numbers are computed with, and on."""
    own = "float32" if config.coder == "native" else around.dtype
    if config.compute_dtype not in (None, own, around.dtype):
        raise ArgumentError(
            f"cache_config: compute_dtype={config.compute_dtype!r} cannot work: backend={config.backend!r} computes in "
            f"{own} with this model. Leave it out."
        )
    if config.device not in (None, around.device, around.device.partition(":")[0]):
        raise ArgumentError(
            f"cache_config: device={config.device!r} cannot work: keys and values are coded where the model is, on "
            f"{around.device!r}. Leave it out."
        )


def _folder(config: GenerationConfig) -> str | None:
    """The folder for files of pages, checked to be there; None: the system's."""
    given = dict(config.cache_config or {})
    inner = given.pop("offload_folder", None)
    if given and config.stands("cache_config", beside="cache_implementation"):
        raise ArgumentError(
            f"cache_config={given!r:.80} has no effect with cache_implementation={config.cache_implementation!r}: its "
            "pages are exact, and it takes offload_folder alone. Leave it out, or pass "
            "cache_implementation='quantized'."
        )
    if inner and config.offload_folder and inner != config.offload_folder:
        raise ArgumentError(
            f"offload_folder={config.offload_folder!r} and cache_config's {inner!r} are two folders. Pass one of them."
        )
    folder = config.offload_folder or inner
    if folder is None:
        return None
    if not isinstance(folder, str) or not (path := Path(folder).expanduser()).is_dir():
        raise ArgumentError(f"offload_folder={folder!r} is no folder. Make it, or leave it out for the system's own.")
    return str(path)
