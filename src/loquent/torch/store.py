"""The page store in torch: one tensor per layer and plane; which page is whose is decided by its user.

Slots that nobody has written hold zeros, and later whatever their last owner left: a masked read may cover them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.parts import Decoder

Plane = Tensor
"""(slots, ...): the entry of slot s of page p is row `p * page_size + s`."""


class PageStore:
    """Keys, values and, for Doge, dynamic mask values of every layer, in pages of `page_size` tokens."""

    def __init__(self, decoder: Decoder, page_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.page_size = page_size
        self._shapes = [_entry_shapes(decoder, layer) for layer in range(len(decoder.blocks))]
        self.dtype, self._device = dtype, device
        self._pages = 0
        self.planes = [[self._zeros(0, shape) for shape in shapes] for shapes in self._shapes]
        """The planes of each layer: keys and values (slots, kv_heads, head_dim), dynamic mask (slots, kv_heads)."""

    @property
    def pages(self) -> int:
        """How many pages there are now."""
        return self._pages

    @property
    def bytes_per_page(self) -> int:
        """The memory of one page, all layers and planes."""
        elements = sum(torch.Size(shape).numel() for shapes in self._shapes for shape in shapes)
        return elements * self.page_size * self.dtype.itemsize

    def resize(self, pages: int) -> None:
        """Grow or shrink to `pages`; pages below the smaller of both counts keep their content."""
        if pages == self._pages:
            return
        kept = min(pages, self._pages) * self.page_size
        for planes, shapes in zip(self.planes, self._shapes):
            for index, shape in enumerate(shapes):
                grown = self._zeros(pages * self.page_size, shape)
                grown[:kept] = planes[index][:kept]
                planes[index] = grown  # one plane at a time, so that the old one is freed at once
        self._pages = pages

    def regroup(self, rows: int, pages_per_row: int) -> None:
        """Give each of `rows` equal runs of pages more room: row r then has pages r * pages_per_row and following."""
        for planes, shapes in zip(self.planes, self._shapes):
            for index, shape in enumerate(shapes):
                grown = self._zeros(rows * pages_per_row * self.page_size, shape)
                held = planes[index].view(rows, -1, *shape)
                grown.view(rows, -1, *shape)[:, : held.shape[1]] = held
                planes[index] = grown
        self._pages = rows * pages_per_row

    def select(self, rows: int, chosen: Tensor) -> None:
        """Of `rows` equal runs of pages keep the `chosen` ones, in that order; some may be repeated."""
        for planes in self.planes:
            for index, plane in enumerate(planes):
                planes[index] = plane.view(rows, -1, *plane.shape[1:])[chosen.to(plane.device)].flatten(0, 1)
        self._pages = self._pages // rows * len(chosen)

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, all layers and planes; no page is both a source and a target."""
        if not len(sources):
            return
        source = torch.as_tensor(sources, device=self._device)
        target = torch.as_tensor(targets, device=self._device)
        for planes in self.planes:
            for plane in planes:
                pages = plane.view(self._pages, -1)
                pages.index_copy_(0, target, pages.index_select(0, source))

    def clear(self, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros, all layers and planes."""
        chosen = torch.as_tensor(pages, device=self._device)
        for planes in self.planes:
            for plane in planes:
                plane.view(self._pages, -1).index_fill_(0, chosen, 0)

    def write(self, layer: int, slots: Tensor | slice, entries: Sequence[Tensor]) -> None:
        """Write the entries of packed tokens, a tensor (tokens, ...) per plane, into their slots; without gradient."""
        for plane, entry in zip(self.planes[layer], entries):
            if isinstance(slots, slice):
                plane[slots].copy_(entry.detach())
            else:
                plane.index_copy_(0, slots, entry.detach())

    def _zeros(self, slots: int, shape: tuple[int, ...]) -> Tensor:
        with torch.inference_mode(False):  # a plain tensor, whoever asks: training may read it too
            return torch.zeros(slots, *shape, dtype=self.dtype, device=self._device)


def _entry_shapes(decoder: Decoder, layer: int) -> list[tuple[int, ...]]:
    part = decoder.blocks[layer].attention
    shapes: list[tuple[int, ...]] = [(part.kv_heads, part.head_dim)] * 2
    return [*shapes, (part.kv_heads,)] if part.dynamic_mask else shapes
