"""`DynamicCache`: the keys and values behind `past_key_values`, for programs that call `forward` step by step.

Each row of the batch is a sequence of its own in a private page store; what the engine uses to generate is elsewhere
(`loquent.cache`). Gradients do not flow into what a cache holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache import PLAIN
from loquent.errors import ArgumentError
from loquent.parts import Decoder
from loquent.torch.groups import Row
from loquent.torch.store import PageStore, open_store

_PAGE_SIZE = 16


class DynamicCache:
    """Keys and values of all layers, growing with each `forward` that it is passed to.

    Lengths are in columns of the padded input, as in transformers; padding takes no memory.
    """

    def __init__(self) -> None:
        self._store: PageStore | None = None
        self._decoder: Decoder | None = None
        self._pages_per_row = 0
        self._seen: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)  # (rows, columns): which held a token

    def __len__(self) -> int:
        """How many layers it holds something of: none before its first use."""
        return len(self._decoder.blocks) if self._decoder else 0

    @property
    def batch_size(self) -> int:
        """How many rows there are; 0 before its first use."""
        return len(self._seen)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which of the columns read so far held a token, (rows, columns)."""
        return self._seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns have been read, padding included."""
        return int(self._seen.shape[1])

    def crop(self, max_length: int) -> None:
        """Forget all but the first `max_length` columns; a negative number forgets so many of the last."""
        keep = max_length if max_length >= 0 else max(0, self.get_seq_length() + max_length)
        self._seen = self._seen[:, :keep]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i what row `beam_idx[i]` was; rows may be repeated or left out."""
        store = self._store
        if store is None:
            return
        rows = beam_idx.tolist()
        if not rows or not all(0 <= row < self.batch_size for row in rows):
            raise ArgumentError(f"beam_idx={rows} must name rows of the cache, 0 to {self.batch_size - 1}.")
        store.select(self.batch_size, beam_idx)
        self._seen = self._seen[rows]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        self.reorder_cache(torch.arange(self.batch_size).repeat_interleave(repeats))

    def plan(
        self, mask: NDArray[np.bool_], spans: Sequence[int], decoder: Decoder, dtype: torch.dtype, device: torch.device
    ) -> tuple[PageStore, list[Row]]:
        """The store with room for the tokens of `mask` (rows, new columns), and what each row brings; reads nothing.

        Rows without a new token are left out. `commit` makes the new columns part of the cache.
        """
        if self._store is None or self._decoder is None:
            self._decoder = decoder
            self._store = open_store(decoder, _PAGE_SIZE, PLAIN, dtype, device)
            self._seen = np.zeros((len(mask), 0), np.bool_)
        self._check_fit(mask, decoder, dtype)
        pasts, lengths = self._seen.sum(1), mask.sum(1)
        self._reserve(int((pasts + lengths).max()))
        rows = []
        for index, (past, length) in enumerate(zip(pasts.tolist(), lengths.tolist())):
            if length:
                first = index * self._pages_per_row
                pages = np.arange(first, first - (-(past + length) // _PAGE_SIZE))
                rows.append(Row(length, past, spans[index], (pages,) * len(self._store.groups)))
        return self._store, rows

    def commit(self, mask: NDArray[np.bool_]) -> None:
        """The new columns have been read."""
        self._seen = np.concatenate([self._seen, mask], 1)

    def _check_fit(self, mask: NDArray[np.bool_], decoder: Decoder, dtype: torch.dtype) -> None:
        store = self._store
        if decoder != self._decoder or (store and store.dtype != dtype):
            raise ArgumentError(
                "past_key_values was filled by a model of another shape or dtype. Pass the cache that this model "
                "returned, or a new DynamicCache()."
            )
        if len(mask) != self.batch_size:
            raise ArgumentError(
                f"past_key_values holds {self.batch_size} rows, but the input has {len(mask)}. Pass the cache of "
                "this batch, or a new DynamicCache()."
            )

    def _reserve(self, tokens: int) -> None:
        """Give every row pages for `tokens`, doubling so that appending stays cheap."""
        needed = -(-tokens // _PAGE_SIZE)
        if needed <= self._pages_per_row or self._store is None:
            return
        grown = max(needed, 2 * self._pages_per_row)
        self._store.regroup(len(self._seen), grown)
        self._pages_per_row = grown
