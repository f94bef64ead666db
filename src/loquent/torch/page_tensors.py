"""Tensors whose rows are pages: growing, copying, clearing, and their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.torch.page_memory import PageMemory


class PageTensors:
    """Tensors of `per_page` rows for each page: entries of tokens, or one row for what a page has as a whole.

    Args:
        shapes: what a row of each tensor is.
        dtypes: its type, or one for all.
        per_page: how many rows of each tensor a page has.
        memory: where they are.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[torch.dtype] | torch.dtype,
        per_page: int,
        memory: PageMemory,
    ) -> None:
        if isinstance(dtypes, torch.dtype):
            dtypes = [dtypes] * len(shapes)
        self.pages, self._per_page = 0, per_page
        self._columns = [memory.column(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]

    @property
    def tensors(self) -> list[Tensor]:
        """(pages * per_page, ...) each; resizing makes others."""
        return [column.tensor for column in self._columns]

    @property
    def bytes_per_page(self) -> int:
        """The memory of one page."""
        return sum(tensor.shape[1:].numel() * tensor.element_size() for tensor in self.tensors) * self._per_page

    def resize(self, pages: int) -> None:
        """Grow or shrink to `pages`; pages below the smaller of both counts keep their content."""
        for column in self._columns:
            column.resize(pages * self._per_page)
        self.pages = pages

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole pages; no page is both a source and a target."""
        for pages in self.by_page():
            pages.index_copy_(0, targets, pages.index_select(0, sources))

    def clear(self, pages: Tensor) -> None:
        """Fill whole pages with zeros."""
        for content in self.by_page():
            content.index_fill_(0, pages, 0)

    def read(self, pages: Tensor) -> Tensor:
        """The bytes of whole pages, (pages, bytes_per_page): tensor by tensor."""
        return torch.cat([content.index_select(0, pages).view(torch.uint8) for content in self.by_page()], 1)

    def write(self, pages: Tensor, content: Tensor) -> None:
        """Put bytes that `read` gave into whole pages."""
        start = 0
        for held in self.by_page():
            stop = start + held.shape[1] * held.element_size()
            # A copy: bytes are numbers of another type only where they begin at a multiple of its size.
            piece = content[:, start:stop].clone(memory_format=torch.contiguous_format)
            held.index_copy_(0, pages, piece.view(held.dtype))
            start = stop

    def by_page(self) -> list[Tensor]:
        """The tensors as (pages, numbers of a page)."""
        return [tensor.view(self.pages, -1) for tensor in self.tensors]
