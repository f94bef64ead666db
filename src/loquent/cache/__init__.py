"""Who holds which page of a KV store: counting, sharing, copy-on-write and remembered prefixes; no tensors."""

from loquent.cache.layout import PLAIN, Coding, LayerGroup, PageGroup, StoreKind, layer_groups
from loquent.cache.memory import Memory
from loquent.cache.pool import PagePool
from loquent.cache.prefix import PageKey, PrefixIndex, page_keys
from loquent.cache.sequence import Sequence

__all__ = [
    "PLAIN",
    "Coding",
    "LayerGroup",
    "Memory",
    "PageGroup",
    "PageKey",
    "PagePool",
    "PrefixIndex",
    "Sequence",
    "StoreKind",
    "layer_groups",
    "page_keys",
]
