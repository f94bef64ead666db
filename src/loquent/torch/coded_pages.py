"""Coded pages of one layer: keys and values in a few bits, as in KIVI; which page is coded when is decided above.

A page's keys are coded by channel, over its tokens; its values by token, over `group` channels at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from loquent import parts
from loquent.cache import Coding, check_coding
from loquent.errors import ArgumentError
from loquent.torch.coding import decode, encode, pack, unpack
from loquent.torch.page_memory import PageMemory
from loquent.torch.page_tensors import PageTensors

_BITS = {None: (1, 2, 4, 8), "quanto": (2, 4), "hqq": (1, 2, 3, 4, 8)}
_AXES = {None: (0,), "quanto": (0, -1), "hqq": (0, 1)}

# Pages are coded so many numbers at a time.
_NUMBERS_AT_ONCE = 1 << 22


class CodedPages(Protocol):
    """Pages whose planes are written whole, once, and read as numbers."""

    @property
    def bytes_per_page(self) -> int:
        """The memory of one page."""

    @property
    def tensors(self) -> list[Tensor]:
        """What it consists of, (pages, ...) each."""

    def by_page(self) -> list[Tensor]:
        """The tensors as (pages, numbers of a page)."""

    def resize(self, pages: int) -> None:
        """Grow or shrink to `pages`; pages below the smaller of both counts keep their content."""

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy whole pages; no page is both a source and a target."""

    def clear(self, pages: Tensor) -> None:
        """Make whole pages decode to zeros."""

    def read(self, pages: Tensor) -> Tensor:
        """The bytes of whole pages, (pages, bytes_per_page)."""

    def write(self, pages: Tensor, content: Tensor) -> None:
        """Put bytes that `read` gave into whole pages."""

    def encode(self, pages: Tensor, planes: Sequence[Tensor]) -> None:
        """Code the planes of whole pages: keys and values (pages, group, kv_heads, head_dim), dynamic mask values."""

    def decode(self, pages: Tensor, plane: int, out: Tensor) -> None:
        """Write a plane of pages (count * pages of each,) to `out`, (count, tokens of each, ...), in any type."""


class KiviPages(PageTensors):
    """Coded by our own arithmetic (`torch.coding`); dynamic mask values are kept as they are."""

    def __init__(self, part: parts.Attention, coding: Coding, dtype: torch.dtype, memory: PageMemory) -> None:
        self._coding = coding
        width, size = part.kv_heads * part.head_dim, coding.group
        packed = (size * coding.bits // 8, width)
        by_channel, by_token = (2, width), (2, size, -(-width // size))
        shapes: list[tuple[int, ...]] = [packed, by_channel, packed, by_token]
        dtypes = [torch.uint8, torch.float16] * 2
        if part.dynamic_mask:
            shapes.append((size, part.kv_heads))
            dtypes.append(dtype)
        super().__init__(shapes, dtypes, 1, memory)

    def encode(self, pages: Tensor, planes: Sequence[Tensor]) -> None:
        """Code the planes of whole pages: keys and values (pages, group, kv_heads, head_dim), dynamic mask values."""
        keys, values = (plane.flatten(2).float() for plane in planes[:2])  # (pages, group, channels)
        codes, minimum, step = encode(keys, self._coding.bits, 1)
        self._put(0, pages, pack(codes, self._coding.bits))
        self._put(1, pages, torch.stack([minimum, step], 1))
        size, width = keys.shape[1:]
        # The last group of a token may be shorter: a number that is there already changes neither end of its range.
        short = -width % size
        grouped = torch.cat([values, values[..., -1:].expand(-1, -1, short)], 2) if short else values
        codes, minimum, step = encode(grouped.view(*grouped.shape[:2], -1, size), self._coding.bits, 3)
        self._put(2, pages, pack(codes.flatten(2)[..., :width].contiguous(), self._coding.bits))
        self._put(3, pages, torch.stack([minimum, step], 1))
        if len(planes) == 3:
            self._put(4, pages, planes[2])

    def decode(self, pages: Tensor, plane: int, out: Tensor) -> None:
        """Write a plane of pages (count * pages of each,) to `out`, (count, tokens of each, ...), in any type."""
        count, size = len(out), self._coding.group
        if plane == 2:
            out.copy_(self.tensors[4].index_select(0, pages).view(out.shape))
            return
        codes = unpack(self.tensors[2 * plane].index_select(0, pages), self._coding.bits)
        codes = codes.view(count, -1, *codes.shape[1:])  # (count, pages, group, channels)
        ranges = self.tensors[2 * plane + 1].index_select(0, pages)
        minimum, step = ranges.view(*codes.shape[:2], *ranges.shape[1:]).unbind(2)
        numbers = out.view(codes.shape)
        if plane == 0:
            decode(codes, minimum.unsqueeze(2), step.unsqueeze(2), numbers)
            return
        whole = codes.shape[3] // size * size  # the last group of a token may be shorter
        if whole:
            groups = slice(whole // size)
            shape = (*codes.shape[:3], -1, size)
            grouped, target = codes[..., :whole].view(shape), numbers[..., :whole].view(shape)
            decode(grouped, minimum[..., groups].unsqueeze(4), step[..., groups].unsqueeze(4), target)
        if whole < codes.shape[3]:
            decode(codes[..., whole:], minimum[..., -1:], step[..., -1:], numbers[..., whole:])

    def _put(self, index: int, pages: Tensor, content: Tensor) -> None:
        self.tensors[index].index_copy_(0, pages, content)


def code_pages(planes: Sequence[Tensor], page_size: int, exact: Tensor, into: CodedPages, coded: Tensor) -> None:
    """Code whole pages `exact` of planes (slots, ...) as pages `coded`."""
    paged = [plane.view(-1, page_size, *plane.shape[1:]) for plane in planes]
    some = max(1, _NUMBERS_AT_ONCE // paged[0].shape[1:].numel())
    for sources, targets in zip(torch.split(exact, some), torch.split(coded, some)):
        into.encode(targets, [plane.index_select(0, sources) for plane in paged])


def check_codes(coding: Coding) -> None:
    """Raises ArgumentError where pages cannot be coded so."""
    if coding.library not in _BITS:
        raise ArgumentError(f'library={coding.library!r} must be "quanto", "hqq" or None.')
    check_coding(coding, _BITS[coding.library])
    for name, axis in (("axis_key", coding.axis_key), ("axis_value", coding.axis_value)):
        if axis not in _AXES[coding.library]:
            raise ArgumentError(f"{name}={axis} must be one of {_AXES[coding.library]}.")
