"""`EncoderDecoderCache`: a decoder's own cache and that of what it attends to, as one."""

from __future__ import annotations

import copy
from typing import Any

from loquent.cache.faces.base import Cache
from loquent.errors import ArgumentError


class EncoderDecoderCache:
    """The cache of a decoder's self-attention, and of its attention to an encoder's output.

    Rows are reordered, repeated and selected in both; lengths are those of the self-attention. A model without an
    encoder uses the self-attention's cache alone.

    Raises:
        ArgumentError: one of the two is no cache, or both are the same.
    """

    is_compileable = False

    def __init__(self, self_attention_cache: Cache, cross_attention_cache: Cache) -> None:
        caches = {"self_attention_cache": self_attention_cache, "cross_attention_cache": cross_attention_cache}
        for name, cache in caches.items():
            if not isinstance(cache, Cache):
                raise ArgumentError(f"{name} is a {type(cache).__name__}. Pass a cache, such as DynamicCache().")
        if self_attention_cache is cross_attention_cache:
            raise ArgumentError("cross_attention_cache is self_attention_cache. Pass two caches.")
        self.self_attention_cache, self.cross_attention_cache = self_attention_cache, cross_attention_cache

    def __len__(self) -> int:
        """How many layers the self-attention's cache holds something of."""
        return len(self.self_attention_cache)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.self_attention_cache!r}, {self.cross_attention_cache!r})"

    @property
    def is_updated(self) -> dict[int, bool]:
        """For each layer whether the encoder's output has been read."""
        cross = self.cross_attention_cache
        return dict.fromkeys(range(len(cross)), cross.get_seq_length() > 0)

    @property
    def batch_size(self) -> int:
        """How many rows there are; 0 before its first use."""
        return self.self_attention_cache.batch_size

    def get_seq_length(self, layer_idx: int = 0, cache_position: Any = None) -> int:
        """How many columns the decoder has read."""
        return self.self_attention_cache.get_seq_length(layer_idx)

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """How many columns the decoder may read; -1: any number."""
        return self.self_attention_cache.get_max_cache_shape(layer_idx)

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """How many columns the decoder may read; -1: any number."""
        return self.self_attention_cache.get_max_length(layer_idx)

    def crop(self, maximum_length: int | None = None, *, tokens_to_remove: int | None = None) -> None:
        """Forget columns that the decoder has read, as `Cache.crop` does; the encoder's output stays."""
        self.self_attention_cache.crop(maximum_length, tokens_to_remove=tokens_to_remove)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Make row i what row `beam_idx[i]` was, in both caches."""
        self.self_attention_cache.reorder_cache(beam_idx)
        self.cross_attention_cache.reorder_cache(beam_idx)

    def batch_select_indices(self, indices: Any) -> None:
        """Keep the rows `indices`, in both caches."""
        self.self_attention_cache.batch_select_indices(indices)
        self.cross_attention_cache.batch_select_indices(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, in both caches."""
        self.self_attention_cache.batch_repeat_interleave(repeats)
        self.cross_attention_cache.batch_repeat_interleave(repeats)

    def batch_split(self, full_batch_size: int, split_size: int) -> list[EncoderDecoderCache]:
        """Caches of `split_size` rows each, in order; this one stays as it is."""
        own = self.self_attention_cache.batch_split(full_batch_size, split_size)
        if self.cross_attention_cache.batch_size:
            cross = self.cross_attention_cache.batch_split(full_batch_size, split_size)
        else:
            cross = [copy.deepcopy(self.cross_attention_cache) for _ in own]
        return [EncoderDecoderCache(*parts) for parts in zip(own, cross)]

    def reset(self) -> None:
        """Forget everything in both."""
        self.self_attention_cache.reset()
        self.cross_attention_cache.reset()
