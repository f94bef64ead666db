"""Who holds which page of a KV store: counting, sharing, copy-on-write and remembered prefixes; no tensors."""

from loquent.cache.budget import Budget
from loquent.cache.layout import PLAIN, Coding, LayerGroup, PageGroup, StoreKind, check_coding, layer_groups, levels
from loquent.cache.memory import Memory
from loquent.cache.pool import PagePool
from loquent.cache.prefix import PageKey, PrefixIndex, page_keys
from loquent.cache.sequence import PageCopy, Sequence
from loquent.cache.space import PageSpace

__all__ = [
    "PLAIN",
    "Budget",
    "Coding",
    "LayerGroup",
    "Memory",
    "PageCopy",
    "PageGroup",
    "PageKey",
    "PagePool",
    "PageSpace",
    "PrefixIndex",
    "Sequence",
    "StoreKind",
    "check_coding",
    "layer_groups",
    "levels",
    "page_keys",
]
