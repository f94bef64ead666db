"""The pages behind the caches that `forward` is passed: a store of their own, and a sequence for each row.

What the engine generates with is elsewhere. Gradients do not flow into what a cache holds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as Items

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache import PLAIN, PageSpace, Sequence, StoreKind
from loquent.cache.faces import Cache, Columns, Pages
from loquent.errors import ArgumentError
from loquent.parts import Decoder
from loquent.torch.groups import Row
from loquent.torch.store import open_store

_PAGE_SIZE = 16


class ForwardPages(Pages):
    """Keys and values of a batch's rows, without padding, as `forward` reads them.

    Rows lie side by side in equal runs of pages, so that they are read in place; what rows share once they have been
    repeated or reordered, they share until they write to it.

    Args:
        decoder: the model's composition.
        kind: how keys and values are kept.
        dtype: the model's.
        device: where the model is.
        rows: how many there are.
        room: how many tokens each is expected to reach.
    """

    def __init__(
        self,
        decoder: Decoder,
        kind: StoreKind = PLAIN,
        *,
        dtype: torch.dtype,
        device: torch.device,
        rows: int,
        room: int,
    ) -> None:
        self.decoder, self.dtype = decoder, dtype
        self.store = open_store(decoder, _PAGE_SIZE, kind, dtype, device)
        self._room = room
        space = self._new_space()
        self._sequences = [Sequence(space, span=0, room=room) for _ in range(rows)]
        self._space = space
        self._coming: list[Sequence] = []  # those that the step under way reads

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.decoder.blocks)

    @property
    def bytes(self) -> int:
        """How much memory the pages take."""
        return sum(self.store.pages(group) * kind.bytes_per_page for group, kind in enumerate(self.store.groups))

    def hold(self, columns: Columns) -> bool:
        """Whether all that was read is there: where not, it was elsewhere, or a row was cropped to behind a window."""
        lengths: list[int] = columns.lengths.tolist()
        return [sequence.stored for sequence in self._sequences] == lengths

    def lacking(self, columns: Columns) -> list[NDArray[np.int64]]:
        """The tokens of each row that were never read into these pages."""
        return [row[len(sequence) :] for row, sequence in zip(columns.rows(), self._sequences)]

    def plan(self, texts: Items[NDArray[np.int64]], spans: Items[int]) -> list[Row]:
        """What each row brings that is to read something: its new tokens, `texts`, behind what it has lost.

        Reads nothing. `coming` are the tokens that are to be read, and `commit` makes them part of the rows.
        """
        self._reserve(max(len(sequence) + len(text) for sequence, text in zip(self._sequences, texts)))
        self._coming, rows, copies = [], [], []
        for sequence, text, span in zip(self._sequences, texts, spans):
            if not len(text) and not sequence.missing:
                continue
            copies += sequence.prepare(text, sequence.missing)
            rows.append(Row(len(sequence.coming), sequence.stored, span, sequence.tables, sequence.coded))
            self._coming.append(sequence)
        for group, pool in enumerate(self._space.pools):
            held = self.store.pages(group)
            if pool.capacity > held:
                self.store.resize(group, max(pool.capacity, held * 5 // 4))
            pairs = [(copy.source, copy.target) for copy in copies if copy.group == group]
            self.store.copy(group, [source for source, _ in pairs], [target for _, target in pairs])
        return rows

    @property
    def coming(self) -> NDArray[np.int64]:
        """The tokens that `plan` made room for, (tokens,), row by row."""
        return np.concatenate([sequence.coming for sequence in self._coming])

    def commit(self) -> None:
        """What was planned has been read."""
        for sequence in self._coming:
            sequence.extend()
        self._coming = []

    def rewind(self, lengths: Items[int]) -> None:
        """Forget all but the first so many tokens of each row."""
        for sequence, length in zip(self._sequences, lengths):
            if length < len(sequence):
                sequence.rewind(length)

    def select(self, rows: Items[int]) -> None:
        """Keep these rows, in this order; some may be repeated, and share their pages then."""
        before, kept = self._sequences, set()
        self._sequences = []
        for row in rows:
            self._sequences.append(before[row].fork() if row in kept else before[row])
            kept.add(row)
        for row, sequence in enumerate(before):
            if row not in kept:
                sequence.close()

    def close(self) -> None:
        """Give the memory back."""
        self._sequences = []
        for group in range(len(self.store.groups)):
            self.store.resize(group, 0)

    def copy(self) -> ForwardPages | None:
        """Others with the same content, in a store of their own; None: they are read again."""
        return copy.deepcopy(self) if self.store.place == "memory" else None

    def layer(self, index: int, columns: Columns) -> tuple[Tensor, Tensor]:
        """The keys and values of a layer, (rows, key-value heads, columns, head size) each, zeros at padding.

        Raises:
            ArgumentError: some of them have been given back, behind a window.
        """
        group, size = self.store.exact_group[index], self.store.page_size
        keys, values = self.store.planes(index)[:2]
        found = [plane.new_zeros(*columns.shape, *plane.shape[1:]) for plane in (keys, values)]
        for row, (sequence, seen) in enumerate(zip(self._sequences, columns.seen)):
            table, places = sequence.tables[group], np.arange(sequence.stored)
            if sequence.stored < seen.sum() or (table < 0).any():
                raise ArgumentError(
                    f"layer {index} of past_key_values does not hold all of row {row} as numbers any more: what is "
                    "behind its window has been given back, or coded. Read them before, or from a DynamicCache."
                )
            slots = torch.from_numpy(table[places // size] * size + places % size).to(keys.device)
            at = torch.from_numpy(np.flatnonzero(seen)).to(keys.device)
            for whole, plane in zip(found, (keys, values)):
                whole[row].index_copy_(0, at, plane.index_select(0, slots))
        return found[0].transpose(1, 2), found[1].transpose(1, 2)

    def _new_space(self) -> PageSpace:
        return PageSpace(self.store.groups, self.store.page_size, reuse=False)

    def _reserve(self, tokens: int) -> None:
        """Give every row room for `tokens`, doubling so that appending stays cheap."""
        if tokens <= self._room:
            return
        room, space = max(tokens, 2 * self._room), self._new_space()
        moved: list[dict[int, int]] = [{} for _ in self.store.groups]
        sequences = [sequence.moved(space, room, moved) for sequence in self._sequences]
        for group, pool in enumerate(space.pools):  # first, as there may be no room for it
            self.store.resize(group, max(pool.capacity, self.store.pages(group)))
        for group, pool in enumerate(space.pools):
            self.store.rearrange(group, pool.capacity, list(moved[group]), list(moved[group].values()))
        self._room, self._space, self._sequences = room, space, sequences


def forward_pages(
    cache: Cache, decoder: Decoder, *, rows: int, room: int, dtype: torch.dtype, device: torch.device
) -> ForwardPages:
    """The pages of a cache that `forward` was passed, made anew where it has none, or the engine's.

    Args:
        cache: what was passed.
        decoder, dtype, device: the model's.
        rows: how many the batch has.
        room: how many tokens the longest of them has with those of this call.

    Raises:
        ArgumentError: another model filled it.
    """
    pages = cache.pages
    if not cache.get_seq_length():
        cache.leave_pages()
    elif isinstance(pages, ForwardPages):
        if pages.decoder != decoder or pages.dtype != dtype:
            raise ArgumentError(
                "past_key_values was filled by a model of another shape or dtype. Pass the cache that this model "
                "returned, or a new DynamicCache()."
            )
        return pages
    else:
        check_known(cache)
        cache.leave_pages()
    room = max(room, cache.max_cache_len or 0)
    made = ForwardPages(decoder, cache.kind, dtype=dtype, device=device, rows=rows, room=room)
    cache.pages = made
    return made


def check_known(cache: Cache) -> None:
    """Raises ArgumentError where keys and values are to be computed again, and it is unknown of what."""
    if not cache.columns.known:
        raise ArgumentError(
            "past_key_values holds tokens that were read from inputs_embeds, or with position_ids or token_type_ids of "
            "their own, and their keys and values are not at hand any more. Read them again into a new cache."
        )
