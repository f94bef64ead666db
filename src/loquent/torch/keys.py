"""The keys that a group of sequences attends to: where they are, and which of them each query sees.

Where the store is coded, what is seen coded comes first, and behind it what is seen exactly. Near the border between
both a position may be in either part; a query sees it in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Span = tuple[int, int]
"""From where to where, the end not included."""

# Blocks of queries that see keys in two forms: small beside the context, so that little is read that nobody sees.
_JOINED_ROWS = 256


@dataclass(frozen=True, eq=False)
class Strided:
    """Slots of `count` sequences in place: `size` slots each from `first` on, `step` slots from one to the next."""

    first: int
    step: int
    count: int
    size: int

    def read(self, plane: Tensor) -> Tensor:
        """The entries, (count, size, ...), without copying."""
        if self.count == 1:
            return plane[self.first : self.first + self.size].unsqueeze(0)
        strides = plane.stride()
        shape = (self.count, self.size, *plane.shape[1:])
        start = plane.storage_offset() + self.first * strides[0]
        return plane.as_strided(shape, (self.step * strides[0], *strides), start)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Slots of `count` sequences by page number, (count * pages of each,), padded with any page."""

    numbers: NDArray[np.int64]
    count: int
    page_size: int
    device: torch.device

    @cached_property
    def pages(self) -> Tensor:
        """The page numbers on the device."""
        return torch.from_numpy(self.numbers).to(self.device)

    @property
    def size(self) -> int:
        """How many slots of each sequence are read."""
        return len(self.numbers) // self.count * self.page_size

    def read(self, plane: Tensor) -> Tensor:
        """The entries, (count, size, ...), in a copy."""
        entries = plane.view(len(plane) // self.page_size, -1).index_select(0, self.pages)
        return entries.view(self.count, self.size, *plane.shape[1:])


@dataclass(frozen=True, eq=False)
class Queries:
    """The new tokens of sequences that are attended together: `length` each, behind `pasts`."""

    pasts: tuple[int, ...]
    length: int
    device: torch.device

    def positions(self, start: int, stop: int, firsts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of new tokens `start` to `stop`, (count, stop - start, 1), and of the keys at `firsts`, (count, 1, 1).

        Where all sequences have the same, there is one row for all of them.
        """
        pairs = list(zip(self.pasts, firsts))
        if len(set(pairs)) == 1:
            pairs = pairs[:1]
        pasts, places = torch.tensor(pairs, device=self.device).view(-1, 2, 1, 1).unbind(1)
        return pasts + torch.arange(start, stop, device=self.device).view(1, -1, 1), places


@dataclass(eq=False)
class Block:
    """New tokens `start` to `stop` of each sequence, and the part of the keys that some of them see.

    `visible` is which of these keys each of them sees, (count or 1, stop - start, keys); None: all. Where all sequences
    see the same, there is one row for all of them.
    """

    start: int
    stop: int
    spans: tuple[Span, ...]
    visible: Tensor | None
    _bias: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def cut(self, plane: Tensor) -> Tensor:
        """The part of a plane (count, size, ...) that the block reads."""
        parts = [plane[:, low:high] for low, high in self.spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """`visible` as numbers to add to the scores, (count or 1, 1, stop - start, keys): 0 or minus infinity."""
        if self.visible is None:
            return None
        if dtype not in self._bias:
            zeros = torch.zeros(self.visible.shape, dtype=dtype, device=self.visible.device)
            self._bias[dtype] = zeros.masked_fill_(~self.visible, float("-inf")).unsqueeze(1)
        return self._bias[dtype]


@dataclass(eq=False)
class Keys:
    """The keys that queries can see: `size` per sequence, of which the first has the position `first[b]`.

    With `joined`, the new tokens' keys come from the projection behind what the store holds, so that gradients reach
    them.
    """

    queries: Queries
    source: Strided | Gathered | None  # None: the new tokens themselves
    first: tuple[int, ...]
    size: int
    window: int | None
    joined: bool
    _whole: Block | None = None

    @property
    def causal(self) -> bool:
        """Whether query i sees exactly keys 0 to i, which needs no mask."""
        return self.source is None and (self.window is None or self.queries.length <= self.window)

    @property
    def whole(self) -> Block:
        """All queries in one block, whose mask serves all layers."""
        if self._whole is None:
            self._whole = self._block(0, self.queries.length, 0, self.size)
        return self._whole

    def blocks(self, rows: int) -> list[Block]:
        """All queries in blocks of at most `rows`; in one, where sequences of different lengths are read."""
        new = self.queries.length
        if rows >= new or len(set(zip(self.queries.pasts, self.first))) > 1:
            return [self.whole]
        offset = self.queries.pasts[0] - self.first[0]
        blocks = []
        for start in range(0, new, rows):
            stop = min(start + rows, new)
            low = 0 if self.window is None else max(0, offset + start - self.window + 1)
            blocks.append(self._block(start, stop, low, min(self.size, offset + stop)))
        return blocks

    @property
    def reads_new(self) -> bool:
        """Whether the new tokens' keys come from the projection."""
        return self.source is None or self.joined

    def read(self, plane: Tensor, new: Tensor | None) -> Tensor:
        """What they are in one plane of the store, (count, size, ...); `new` (count, new, ...) comes behind it."""
        assert self.source is not None
        stored = self.source.read(plane)
        return stored if new is None else torch.cat([stored[:, : self.queries.pasts[0] - self.first[0]], new], 1)

    def by_position(self, weights: Tensor) -> Tensor:
        """Attention weights (count, heads, new, size) of which the first is that of position `first[b]`."""
        return weights

    def _block(self, start: int, stop: int, low: int, high: int) -> Block:
        visible = None if self._all_seen(start, stop) else self._mask(start, stop, low, high)
        return Block(start, stop, ((low, high),), visible)

    def _all_seen(self, start: int, stop: int) -> bool:
        if stop - start > 1:
            return False
        return all(
            first + self.size - 1 == past + start and (self.window is None or self.size <= self.window)
            for first, past in zip(self.first, self.queries.pasts)
        )

    def _mask(self, start: int, stop: int, low: int, high: int) -> Tensor:
        queries, firsts = self.queries.positions(start, stop, self.first)
        queries = queries - firsts  # relative to the first key
        keys = torch.arange(low, high, device=queries.device)
        seen = keys <= queries
        return seen if self.window is None else seen & (keys > queries - self.window)


@dataclass(eq=False)
class PackedKeys(Keys):
    """The keys of packs: sequences that hold several documents end to end, each of which sees itself only.

    `documents` (count, size) has the number of each token's document.
    """

    documents: Tensor = field(kw_only=True)

    @property
    def causal(self) -> bool:
        """Whether query i sees exactly keys 0 to i: it does not see those of other documents."""
        return False

    def _all_seen(self, start: int, stop: int) -> bool:
        return False

    def _mask(self, start: int, stop: int, low: int, high: int) -> Tensor:
        own = self.documents[:, start:stop, None] == self.documents[:, None, low:high]
        return super()._mask(start, stop, low, high) & own


@dataclass(eq=False)
class JoinedKeys:
    """The keys of a coded store: whole pages that are seen coded, then those that are seen exactly.

    The query at t sees what lies before `border(t)` coded, and the others exactly. `coded` has `coded_size` keys per
    sequence, of which the first has the position `first[b]`.
    """

    coded: Gathered
    first: tuple[int, ...]
    exact: Keys
    window: int | None
    residual: int
    _whole: Block | None = None

    causal = False
    """Whether query i sees exactly keys 0 to i."""

    @property
    def queries(self) -> Queries:
        """The queries that see them."""
        return self.exact.queries

    @property
    def size(self) -> int:
        """How many keys of both forms there are per sequence."""
        return self.coded.size + self.exact.size

    @property
    def whole(self) -> Block:
        """All queries in one block, whose mask serves all layers."""
        if self._whole is None:
            self._whole = self._block(0, self.queries.length)
        return self._whole

    def blocks(self, rows: int) -> list[Block]:
        """All queries in blocks of at most `rows`."""
        new, rows = self.queries.length, min(rows, _JOINED_ROWS)
        if rows >= new:
            return [self.whole]
        return [self._block(start, min(start + rows, new)) for start in range(0, new, rows)]

    def border(self, position: int) -> int:
        """The first position that the query at `position` sees exactly."""
        size = self.coded.page_size
        return max(0, position + 1 - self.residual) // size * size

    def by_position(self, weights: Tensor) -> Tensor:
        """Attention weights (count, heads, new, keys of `whole`), as those of the positions from `first[b]` on."""
        (low, high), (start, stop) = self._spans(0, self.queries.length)
        coded, exact = torch.split(weights, [high - low, stop - start], -1)
        ends = [past + self.queries.length for past in self.queries.pasts]
        width = max(end - first for end, first in zip(ends, self.first))
        placed = weights.new_zeros(*weights.shape[:3], width)
        placed[..., low:high] = coded
        for row, (first, behind) in enumerate(zip(self.first, self.exact.first)):
            place = behind - first + start
            some = placed[row, :, :, place : place + stop - start]
            some += exact[row, :, :, : some.shape[-1]]
        return placed

    def _block(self, start: int, stop: int) -> Block:
        spans = (low, high), (first, last) = self._spans(start, stop)
        visible = None if self._all_seen(start, stop, spans) else self._mask(start, stop, spans)
        coded = self.coded.size
        if high == coded and first == 0:
            return Block(start, stop, ((low, coded + last),), visible)
        return Block(start, stop, ((low, high), (coded + first, coded + last)), visible)

    def _spans(self, start: int, stop: int) -> tuple[Span, Span]:
        """Which of the coded keys, and which of the exact ones, some of the queries `start` to `stop` see."""
        rows = list(zip(self.queries.pasts, self.first, self.exact.first))
        high = max(0, max(self.border(past + stop - 1) - first for past, first, _ in rows))
        low = 0
        if self.window is not None:
            low = min(high, max(0, min(past + start + 1 - self.window - first for past, first, _ in rows)))
        exact = (
            min(self.border(past + start) - behind for past, _, behind in rows),
            max(past + stop - behind for past, _, behind in rows),
        )
        return (low, high), exact

    def _all_seen(self, start: int, stop: int, spans: tuple[Span, Span]) -> bool:
        if stop - start > 1:
            return False
        for past, first, behind in zip(self.queries.pasts, self.first, self.exact.first):
            border = self.border(past + start)
            if spans != ((0, border - first), (border - behind, past + stop - behind)):
                return False
            if self.window is not None and past + start - self.window >= first:
                return False
        return True

    def _mask(self, start: int, stop: int, spans: tuple[Span, Span]) -> Tensor:
        queries, first = self.queries.positions(start, stop, self.first)
        coded = first + torch.arange(*spans[0], device=first.device)
        later, first = self.queries.positions(start, stop, self.exact.first)
        exact = first + torch.arange(*spans[1], device=first.device)
        seen = [coded < self._borders(queries), (exact >= self._borders(later)) & (exact <= later)]
        if self.window is not None:
            seen = [seen[0] & (coded > queries - self.window), seen[1] & (exact > later - self.window)]
        rows = max(len(some) for some in seen)
        return torch.cat([some.expand(rows, -1, -1) for some in seen], -1)

    def _borders(self, positions: Tensor) -> Tensor:
        size = self.coded.page_size
        return (positions + 1 - self.residual).clamp(min=0) // size * size
