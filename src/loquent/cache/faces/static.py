"""Caches that are made for a length: `StaticCache`, which keeps to it, and `SlidingWindowCache`."""

from __future__ import annotations

from typing import Any

from loquent.cache.faces.base import Cache
from loquent.cache.layout import StoreKind
from loquent.errors import ArgumentError


class StaticCache(Cache):
    """A cache of up to `max_cache_len` columns and `max_batch_size` rows; what would exceed them is refused.

    Memory is taken as tokens come, and only for tokens.

    Args:
        config: accepted for programs that pass the model's config.
        max_batch_size: how many rows it may hold; None: any number.
        max_cache_len: how many columns it may hold; None: any number.
        device, dtype, layer_device_map, tp_size: accepted; keys and values have the model's.
        offloading: keep the pages away from the device that computes, as `OffloadedStaticCache` does.
        offload_only_non_sliding: accepted; pages of windows are offloaded with the others.

    Raises:
        ArgumentError: a size below 1.
    """

    def __init__(
        self,
        config: Any = None,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: Any = None,
        dtype: Any = None,
        layer_device_map: Any = None,
        tp_size: int | None = None,
        *,
        offloading: bool = False,
        offload_only_non_sliding: bool = True,
    ) -> None:
        super().__init__()
        for name, size in (("max_batch_size", max_batch_size), ("max_cache_len", max_cache_len)):
            if size is not None and size < 1:
                raise ArgumentError(f"{name}={size} must be at least 1, or None for any number.")
        self.max_batch_size, self.max_cache_len = max_batch_size, max_cache_len
        if offloading:
            self.kind = StoreKind(offloaded=True)


class OffloadedStaticCache(StaticCache):
    """A static cache whose pages are offloaded as those of an `OffloadedCache`.

    Args:
        config, max_batch_size, max_cache_len, device, dtype, layer_device_map, tp_size: as for `StaticCache`.
        offload_device: accepted: pages are in the host's memory, or in a file where the model runs on the CPU.
        offload_folder: where such files are made; None: where the system has its temporary files.
    """

    def __init__(
        self,
        config: Any = None,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: Any = None,
        dtype: Any = None,
        layer_device_map: Any = None,
        tp_size: int | None = None,
        *,
        offload_device: Any = None,
        offload_folder: str | None = None,
    ) -> None:
        super().__init__(config, max_batch_size, max_cache_len)
        self.kind = StoreKind(offloaded=True, folder=offload_folder)


class SlidingWindowCache(Cache):
    """A cache for models whose layers see a window of the last tokens: pages that no layer sees are given back.

    Every cache does that; this is its name in transformers. Which tokens a layer sees is the model's matter: a model
    without windows keeps everything. There may be any number of tokens.

    Args:
        config: accepted for programs that pass the model's config.
        max_batch_size: how many rows it may hold; None: any number.
        max_cache_len, device, dtype, layer_device_map, tp_size: accepted.
    """

    def __init__(
        self,
        config: Any = None,
        max_batch_size: int | None = None,
        max_cache_len: int | None = None,
        device: Any = None,
        dtype: Any = None,
        layer_device_map: Any = None,
        tp_size: int | None = None,
    ) -> None:
        super().__init__()
        self.max_batch_size = max_batch_size
