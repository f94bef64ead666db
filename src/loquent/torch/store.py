"""The page store in torch: one tensor per layer and plane; which page is whose is decided by its user.

Slots that nobody has written hold zeros, and later whatever their last owner left: a masked read may cover them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.cache import LayerGroup, PageGroup, layer_groups
from loquent.parts import Decoder

Plane = Tensor
"""(slots, ...): the entry of slot s of page p is row `p * page_size + s`."""


class PageStore:
    """Keys, values and, for Doge, dynamic mask values of every layer, in pages of `page_size` tokens.

    Layers that see the same span of tokens are a group: they share page numbers.
    """

    place = "memory"

    def __init__(self, decoder: Decoder, page_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.page_size = page_size
        self.dtype, self._device = dtype, device
        self._shapes = [_entry_shapes(decoder, layer) for layer in range(len(decoder.blocks))]
        self._layer_groups = layer_groups([block.attention.window for block in decoder.blocks])
        self.groups = [self._describe(group) for group in self._layer_groups]
        self.group_of = {layer: index for index, group in enumerate(self._layer_groups) for layer in group.layers}
        """The group of each layer."""
        self._pages = [0] * len(self.groups)
        self.planes = [[self._zeros(0, shape) for shape in shapes] for shapes in self._shapes]
        """The planes of each layer: keys and values (slots, kv_heads, head_dim), dynamic mask (slots, kv_heads)."""

    @property
    def format(self) -> str:
        """What the bytes of `read_pages` mean: the type of numbers, and the shapes of each group's planes."""
        groups = [
            f"{group.window}: {' '.join(str(self._shapes[layer]) for layer in group.layers)}"
            for group in self._layer_groups
        ]
        return f"torch 1, {self.dtype}, pages of {self.page_size}; {'; '.join(groups)}"

    def pages(self, group: int) -> int:
        """How many pages of a group there are now."""
        return self._pages[group]

    def resize(self, group: int, pages: int) -> None:
        """Grow or shrink a group to `pages`; pages below the smaller of both counts keep their content."""
        if pages == self._pages[group]:
            return
        kept = min(pages, self._pages[group]) * self.page_size
        for planes, index in self._places(group):
            grown = self._zeros(pages * self.page_size, planes[index].shape[1:])
            grown[:kept] = planes[index][:kept]
            planes[index] = grown  # one plane at a time, so that the old one is freed at once
        self._pages[group] = pages

    def rearrange(self, group: int, pages: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Have `pages` pages, of which each of `targets` holds what its page of `sources` did; the rest are zeros."""
        source, target = self._numbers(sources), self._numbers(targets)
        for planes, index in self._places(group):
            held = planes[index]
            made = self._zeros(pages * self.page_size, held.shape[1:])
            if len(sources):
                taken = held.view(self._pages[group], -1).index_select(0, source)
                made.view(pages, -1).index_copy_(0, target, taken)
            planes[index] = made  # one plane at a time, so that the old one is freed at once
        self._pages[group] = pages

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, all layers and planes of the group; no page is both a source and a target."""
        if not len(sources):
            return
        source, target = self._numbers(sources), self._numbers(targets)
        for pages in self._by_page(group):
            pages.index_copy_(0, target, pages.index_select(0, source))

    def clear(self, group: int, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros, all layers and planes of the group."""
        if not len(pages):
            return
        chosen = self._numbers(pages)
        for content in self._by_page(group):
            content.index_fill_(0, chosen, 0)

    def read_pages(self, group: int, pages: Sequence[int]) -> NDArray[np.uint8]:
        """The content of whole pages, (pages, bytes_per_page): layer by layer, plane by plane."""
        if not len(pages):
            return np.zeros((0, self.groups[group].bytes_per_page), np.uint8)
        chosen = self._numbers(pages)
        pieces = [content.index_select(0, chosen).view(torch.uint8) for content in self._by_page(group)]
        return torch.cat(pieces, 1).cpu().numpy()

    def write_pages(self, group: int, pages: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Put content that `read_pages` gave, (pages, bytes_per_page), into whole pages."""
        if not len(pages):
            return
        chosen, start = self._numbers(pages), 0
        for held in self._by_page(group):
            stop = start + held.shape[1] * held.element_size()
            piece = torch.from_numpy(content[:, start:stop].copy()).view(held.dtype)
            held.index_copy_(0, chosen, piece.to(self._device))
            start = stop

    def write(self, layer: int, slots: Tensor | slice, entries: Sequence[Tensor]) -> None:
        """Write the entries of packed tokens, a tensor (tokens, ...) per plane, into their slots; without gradient."""
        for plane, entry in zip(self.planes[layer], entries):
            if isinstance(slots, slice):
                plane[slots].copy_(entry.detach())
            else:
                plane.index_copy_(0, slots, entry.detach())

    def _describe(self, group: LayerGroup) -> PageGroup:
        numbers = sum(torch.Size(shape).numel() for layer in group.layers for shape in self._shapes[layer])
        return PageGroup(numbers * self.page_size * self.dtype.itemsize, group.window, group.residual)

    def _places(self, group: int) -> Iterator[tuple[list[Plane], int]]:
        """Where the group's planes are kept: the list of a layer, and the index in it."""
        for layer in self._layer_groups[group].layers:
            for index in range(len(self.planes[layer])):
                yield self.planes[layer], index

    def _by_page(self, group: int) -> Iterator[Tensor]:
        """Views of the group's planes, (pages, numbers of a page)."""
        for planes, index in self._places(group):
            yield planes[index].view(self._pages[group], -1)

    def _numbers(self, pages: Sequence[int]) -> Tensor:
        return torch.as_tensor(np.asarray(pages, np.int64), device=self._device)

    def _zeros(self, slots: int, shape: Sequence[int]) -> Tensor:
        with torch.inference_mode(False):  # a plain tensor, whoever asks: training may read it too
            return torch.zeros(slots, *shape, dtype=self.dtype, device=self._device)


def _entry_shapes(decoder: Decoder, layer: int) -> list[tuple[int, ...]]:
    part = decoder.blocks[layer].attention
    shapes: list[tuple[int, ...]] = [(part.kv_heads, part.head_dim)] * 2
    return [*shapes, (part.kv_heads,)] if part.dynamic_mask else shapes
