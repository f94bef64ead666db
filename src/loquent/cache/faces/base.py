"""`Cache`: what a program holds of the tokens that were read for it; the pages themselves are somebody else's.

The names are those of https://huggingface.co/docs/transformers/kv_cache, and of 5.23 where it has others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from loquent.cache.faces.columns import Columns
from loquent.cache.layout import PLAIN, StoreKind
from loquent.errors import ArgumentError


class Pages(Protocol):
    """Where a cache's keys and values are; for each row of the cache a row of them, without its padding.

    They may hold less than the cache remembers: what is missing is read again by whoever needs it.
    """

    @property
    def layers(self) -> int:
        """How many layers there are."""

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first so many tokens of each row."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; some may be repeated."""

    def close(self) -> None:
        """Give the pages back."""

    def copy(self) -> Pages | None:
        """Others with the same content; None: they cannot be copied, and are read again."""

    def layer(self, index: int, columns: Columns) -> tuple[Any, Any]:
        """The keys and values of a layer, (rows, key-value heads, columns, head size) each, zeros at padding.

        Raises:
            ArgumentError: they cannot be read; says why.
        """


class Cache:
    """The tokens that were read for a program, and the place of their keys and values.

    It is passed as `past_key_values`: to `generate`, whose input then begins with what the cache holds, and which
    leaves in it all of its result but the last token of each row; or to `forward`, whose input then follows what the
    cache holds. Results are those without a cache, only sooner. Lengths are in columns of the padded input; padding
    takes no memory.

    A copy (`copy.deepcopy`) is independent of the original. What is pickled are the tokens; their keys and values are
    computed again when they are needed.

    Attributes:
        kind: how keys and values are kept.
        columns: the ids that were read.
        pages: where the keys and values are; None: nowhere, as before the first use.
        max_cache_len: how many columns there may be; None: any number.
        max_batch_size: how many rows; None: any number.
    """

    kind: StoreKind = PLAIN
    is_compileable = False
    max_cache_len: int | None = None
    max_batch_size: int | None = None

    def __init__(self) -> None:
        self.columns = Columns()
        self.pages: Pages | None = None

    def __len__(self) -> int:
        """How many layers it holds something of: none before its first use."""
        return self.pages.layers if self.pages is not None else 0

    def __bool__(self) -> bool:
        """Always true, as there is a cache: whether it holds something is for `get_seq_length`."""
        return True

    def __repr__(self) -> str:
        rows, columns = self.columns.shape
        return f"{type(self).__name__}(rows={rows}, length={columns})"

    def __getitem__(self, layer_idx: int) -> tuple[Any, Any]:
        """A layer's keys and values, (batch, key-value heads, length, head size) each, with zeros at padding.

        Raises:
            ArgumentError: nothing was read by `forward` yet, or not all of it is there in this form.
        """
        if self.pages is None:
            raise ArgumentError("The cache holds no keys and values yet. Pass it to a model as past_key_values first.")
        if not -len(self) <= layer_idx < len(self):
            raise IndexError(f"the cache has {len(self)} layers, and no layer {layer_idx}")
        return self.pages.layer(layer_idx % len(self), self.columns)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[layer] for layer in range(len(self)))

    @property
    def key_cache(self) -> list[Any]:
        """The keys of each layer; see `__getitem__`."""
        return [keys for keys, _ in self]

    @property
    def value_cache(self) -> list[Any]:
        """The values of each layer; see `__getitem__`."""
        return [values for _, values in self]

    def to_legacy_cache(self) -> tuple[tuple[Any, Any], ...]:
        """The keys and values of each layer; see `__getitem__`."""
        return tuple(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Cache:
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin.columns = copy.deepcopy(self.columns)
        twin.pages = None if self.pages is None else self.pages.copy()
        return twin

    def __copy__(self) -> Cache:
        """A cache must not share its pages' places with another: a shallow copy has none of its own."""
        twin = type(self).__new__(type(self))
        vars(twin).update(self.__getstate__())
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"pages": None, "columns": copy.deepcopy(self.columns)}

    @property
    def batch_size(self) -> int:
        """How many rows there are; 0 before its first use."""
        return self.columns.shape[0]

    def get_seq_length(self, layer_idx: int = 0, cache_position: Any = None) -> int:
        """How many columns have been read, padding included; the same for every layer."""
        return self.columns.shape[1]

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        """How many columns there may be; -1: any number."""
        return -1 if self.max_cache_len is None else self.max_cache_len

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """How many columns there may be; -1: any number."""
        return self.get_max_cache_shape()

    def crop(self, max_length: int | None = None, *, tokens_to_remove: int | None = None) -> None:
        """Forget all but the first `max_length` columns; a negative number forgets so many of the last.

        `tokens_to_remove` is what transformers 5 calls it: 0, or the negative number.

        Raises:
            ArgumentError: neither or both were given, or `tokens_to_remove` is positive.
        """
        if (max_length is None) == (tokens_to_remove is None):
            raise ArgumentError("crop takes one of max_length and tokens_to_remove. Pass one of them.")
        length = self.get_seq_length()
        if tokens_to_remove is not None:
            if tokens_to_remove > 0:
                raise ArgumentError(f"{tokens_to_remove=} must be 0 or negative, such as {-tokens_to_remove}.")
            max_length = length + tokens_to_remove
        assert max_length is not None
        keep = max_length if max_length >= 0 else max(0, length + max_length)
        if keep >= length:
            return
        self.columns.crop(keep)
        if self.pages is not None:
            self.pages.rewind(self.columns.lengths.tolist())

    def reorder_cache(self, beam_idx: Any) -> None:
        """Make row i what row `beam_idx[i]` was; rows may be repeated or left out.

        Raises:
            ArgumentError: there is no such row.
        """
        rows = _numbers(beam_idx)
        count = self.batch_size
        if not count:
            return  # as in transformers: what is empty has no rows yet
        if not rows or not all(-count <= row < count for row in rows):
            raise ArgumentError(f"beam_idx={rows} must name rows of the cache, 0 to {count - 1}.")
        rows = [row % count for row in rows]
        if rows == list(range(count)):
            return
        self.columns.select(rows)
        if self.pages is not None:
            self.pages.select(rows)

    def batch_select_indices(self, indices: Any) -> None:
        """Keep the rows `indices`: numbers, or for each row whether it is kept.

        Raises:
            ArgumentError: there is no such row.
        """
        chosen = _numbers(indices)
        if chosen and all(isinstance(row, bool) for row in chosen):
            chosen = [row for row, is_kept in enumerate(chosen) if is_kept]
        self.reorder_cache(chosen)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, each beside itself.

        Raises:
            ArgumentError: `repeats` is below 1.
        """
        if repeats < 1:
            raise ArgumentError(f"{repeats=} must be at least 1.")
        self.reorder_cache([row for row in range(self.batch_size) for _ in range(repeats)])

    def batch_split(self, full_batch_size: int, split_size: int) -> list[Cache]:
        """Caches of `split_size` rows each (the last one of what is left), in order; this one stays as it is.

        Raises:
            ArgumentError: `full_batch_size` is not how many rows there are, or `split_size` is below 1.
        """
        if full_batch_size != self.batch_size or split_size < 1:
            raise ArgumentError(
                f"batch_split({full_batch_size}, {split_size}): the cache has {self.batch_size} rows, and each part "
                "must have one or more."
            )
        parts = []
        for first in range(0, full_batch_size, split_size):
            part = copy.deepcopy(self)
            part.reorder_cache(range(first, min(first + split_size, full_batch_size)))
            parts.append(part)
        return parts

    def reset(self) -> None:
        """Forget everything; what the cache may hold stays as it is."""
        self.columns = Columns()
        self.leave_pages()

    def leave_pages(self) -> None:
        """Give the pages back; what was read is remembered, and read again where it is needed."""
        if self.pages is not None:
            self.pages.close()
            self.pages = None

    def check_room(self, rows: int, columns: int) -> None:
        """Raises ArgumentError where so many rows or columns would not fit."""
        if self.max_batch_size is not None and rows > self.max_batch_size:
            raise ArgumentError(
                f"past_key_values was made for max_batch_size={self.max_batch_size}, but the batch has {rows} rows. "
                "Make it larger, or use a DynamicCache."
            )
        if self.max_cache_len is not None and columns > self.max_cache_len:
            raise ArgumentError(
                f"past_key_values was made for max_cache_len={self.max_cache_len}, but {columns} columns are to be "
                "held. Make it larger, ask for fewer tokens, or use a DynamicCache."
            )


def _numbers(indices: Any) -> list[Any]:
    """A tensor, an array or a sequence of numbers as a list."""
    found: list[Any] = indices.tolist() if hasattr(indices, "tolist") else list(indices)
    return found
