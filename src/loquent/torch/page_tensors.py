"""Tensors whose rows are pages: growing, copying, clearing, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PageTensors:
    """Tensors of `per_page` rows for each page: entries of tokens, or one row for what a page has as a whole.

    Args:
        shapes: what a row of each tensor is.
        dtypes: its type, or one for all.
        per_page: how many rows of each tensor a page has.
        device: where they are.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[torch.dtype] | torch.dtype,
        per_page: int,
        device: torch.device,
    ) -> None:
        if isinstance(dtypes, torch.dtype):
            dtypes = [dtypes] * len(shapes)
        self.pages, self._per_page, self._device = 0, per_page, device
        self.tensors = [self._zeros(0, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        """(pages * per_page, ...) each; resizing puts others into the list."""

    @property
    def bytes_per_page(self) -> int:
        """The memory of one page."""
        return sum(tensor.shape[1:].numel() * tensor.element_size() for tensor in self.tensors) * self._per_page

    def resize(self, pages: int) -> None:
        """Grow or shrink to `pages`; pages below the smaller of both counts keep their content."""
        kept = min(pages, self.pages) * self._per_page
        for index, tensor in enumerate(self.tensors):
            grown = self._zeros(pages * self._per_page, tensor.shape[1:], tensor.dtype)
            grown[:kept] = tensor[:kept]
            self.tensors[index] = grown  # one at a time, so that the old one is freed at once
        self.pages = pages

    def regroup(self, rows: int, pages_per_row: int) -> None:
        """Give each of `rows` equal runs of pages more room: row r then has pages r * pages_per_row and following."""
        for index, tensor in enumerate(self.tensors):
            shape = tensor.shape[1:]
            grown = self._zeros(rows * pages_per_row * self._per_page, shape, tensor.dtype)
            held = tensor.view(rows, -1, *shape)
            grown.view(rows, -1, *shape)[:, : held.shape[1]] = held
            self.tensors[index] = grown
        self.pages = rows * pages_per_row

    def select(self, rows: int, chosen: Tensor) -> None:
        """Of `rows` equal runs of pages keep the `chosen` ones, in that order; some may be repeated."""
        for index, tensor in enumerate(self.tensors):
            runs = tensor.view(rows, -1, *tensor.shape[1:])
            self.tensors[index] = runs[chosen.to(self._device)].flatten(0, 1)
        self.pages = self.pages // rows * len(chosen)

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole pages; no page is both a source and a target."""
        for pages in self._by_page():
            pages.index_copy_(0, targets, pages.index_select(0, sources))

    def clear(self, pages: Tensor) -> None:
        """Fill whole pages with zeros."""
        for content in self._by_page():
            content.index_fill_(0, pages, 0)

    def read(self, pages: Tensor) -> Tensor:
        """The bytes of whole pages, (pages, bytes_per_page): tensor by tensor."""
        return torch.cat([content.index_select(0, pages).view(torch.uint8) for content in self._by_page()], 1)

    def write(self, pages: Tensor, content: Tensor) -> None:
        """Put bytes that `read` gave into whole pages."""
        start = 0
        for held in self._by_page():
            stop = start + held.shape[1] * held.element_size()
            # A copy: bytes are numbers of another type only where they begin at a multiple of its size.
            piece = content[:, start:stop].clone(memory_format=torch.contiguous_format)
            held.index_copy_(0, pages, piece.view(held.dtype))
            start = stop

    def _by_page(self) -> list[Tensor]:
        """The tensors as (pages, numbers of a page)."""
        return [tensor.view(self.pages, -1) for tensor in self.tensors]

    def _zeros(self, rows: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        with torch.inference_mode(False):  # a plain tensor, whoever asks: training may read it too
            return torch.zeros(rows, *shape, dtype=dtype, device=self._device)
