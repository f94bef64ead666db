"""Caches that grow as they are needed: in memory, or offloaded from the device that computes."""

from __future__ import annotations

from typing import Any

from loquent.cache.faces.base import Cache
from loquent.cache.layout import StoreKind


class DynamicCache(Cache):
    """A cache that grows with what is read, in the model's own precision.

    Args:
        config: accepted for programs that pass the model's config; windows are the model's own anyway.
        offloading: keep the pages away from the device that computes, as `OffloadedCache` does.
        offload_only_non_sliding: accepted; pages of windows are offloaded with the others.
    """

    def __init__(
        self, *, config: Any = None, offloading: bool = False, offload_only_non_sliding: bool | None = None
    ) -> None:
        super().__init__()
        if offloading:
            self.kind = StoreKind(offloaded=True)


class OffloadedCache(DynamicCache):
    """A dynamic cache whose pages are in the host's memory, and each layer's on the GPU only while it is computed.

    Where the model runs on the CPU they are in a file instead.

    Args:
        offload_folder: where such files are made; None: where the system has its temporary files.
    """

    def __init__(self, offload_folder: str | None = None) -> None:
        super().__init__()
        self.kind = StoreKind(offloaded=True, folder=offload_folder)
