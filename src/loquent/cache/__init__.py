"""Who holds which page of a KV store: counting, sharing, copy-on-write and remembered prefixes; no tensors."""

from loquent.cache.memory import Memory
from loquent.cache.pool import PagePool
from loquent.cache.prefix import PageKey, PrefixIndex, page_keys
from loquent.cache.sequence import Sequence

__all__ = ["Memory", "PageKey", "PagePool", "PrefixIndex", "Sequence", "page_keys"]
