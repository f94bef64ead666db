"""KIVI as it reads, in numpy, one query after another: what coded stores are compared to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loquent import parts
from loquent.cache import Coding

Floats = NDArray[Any]


def coded(numbers: Floats, bits: int) -> tuple[NDArray[np.uint8], np.float16, np.float16]:
    """Codes, minimum and step of one group of finite float32 numbers, (n,)."""
    low, high = numbers.min(), numbers.max()
    # With 1 and 2 bits codes stand for the centres of equal cells, with more for the ends of the range too.
    inset, steps = {1: (0.25, 1.5), 2: (0.125, 3.5), 4: (0, 15), 8: (0, 255)}[bits]
    minimum = _half_next_to(low + np.float32(inset) * (high - low), up=False)
    step = _half_next_to((high - np.float32(minimum)) / np.float32(steps), up=True)
    if step == 0:
        return np.zeros(len(numbers), np.uint8), minimum, step
    codes = np.rint((numbers - np.float32(minimum)) / np.float32(step))
    return codes.clip(0, 2**bits - 1).astype(np.uint8), minimum, step


def through_codes(numbers: Floats, bits: int) -> Floats:
    """What a group of numbers is read as."""
    codes, minimum, step = coded(numbers.astype(np.float32), bits)
    return np.float32(minimum) + np.float32(step) * codes.astype(np.float32)


def _half_next_to(number: np.float32, *, up: bool) -> np.float16:
    with np.errstate(over="ignore"):
        half = np.float16(number)
    limit = np.float16(np.inf if up else -np.inf)
    if (half < number) if up else (half > number):
        half = np.nextafter(half, limit)
    return np.float16(min(max(half, np.float16(-65504)), np.float16(65504)))


def page_through_codes(keys: Floats, values: Floats, coding: Coding) -> tuple[Floats, Floats]:
    """What a page's keys and values (group, kv_heads, head_dim) are read as."""
    size, width = len(keys), keys[0].size
    read_keys = np.stack([through_codes(channel, coding.bits) for channel in keys.reshape(size, width).T], 1)
    read_values = np.stack(
        [
            np.concatenate([through_codes(token[at : at + size], coding.bits) for at in range(0, width, size)])
            for token in values.reshape(size, width)
        ]
    )
    return read_keys.reshape(keys.shape), read_values.reshape(values.shape)


@dataclass
class Kivi:
    """Takes the place of `loquent.torch.attention.attend` in a forward pass of one whole text, without a store."""

    coding: Coding
    through_codes: Callable[[Floats, Floats, Coding], tuple[Floats, Floats]] = page_through_codes

    def attend(
        self,
        part: parts.Attention,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        where: Any,
        *,
        mask_values: torch.Tensor | None = None,
        dropout: float = 0.0,
    ) -> torch.Tensor:
        asked, exact = queries[0].numpy(), (keys[0].numpy(), values[0].numpy())
        read_keys, read_values = exact[0].copy(), exact[1].copy()
        size = self.coding.group
        for start in range(0, len(asked) - size + 1, size):
            page = slice(start, start + size)
            read_keys[page], read_values[page] = self.through_codes(read_keys[page], read_values[page], self.coding)
        added = None if mask_values is None else mask_values[0].numpy()
        forms = (exact, (read_keys, read_values))
        read = [self._one(part, t, asked[t], *forms, added) for t in range(len(asked))]
        return torch.from_numpy(np.stack(read)).to(queries.dtype)[None]

    def _one(
        self,
        part: parts.Attention,
        t: int,
        query: Floats,
        exact: tuple[Floats, Floats],
        coded_form: tuple[Floats, Floats],
        added: Floats | None,
    ) -> Floats:
        """What the query at t reads, (heads, head_dim)."""
        border = max(0, t + 1 - self.coding.residual) // self.coding.group * self.coding.group
        seen = [p for p in range(t + 1) if part.window is None or p > t - part.window]
        keys = np.stack([coded_form[0][p] if p < border else exact[0][p] for p in seen])
        values = np.stack([coded_form[1][p] if p < border else exact[1][p] for p in seen])
        result = np.zeros_like(query)
        for head in range(part.heads):
            shared = head // (part.heads // part.kv_heads)
            scores = keys[:, shared] @ query[head] * part.scale
            if added is not None and part.dynamic_mask is not None:
                mask = added[seen, shared]
                scores = scores + mask
                alike = (mask.astype(np.float32).view(np.int32) + 0x80) & ~0xFF  # equal to a relative 2^-15
                best = sorted(range(len(seen)), key=lambda place: (alike[place], place), reverse=True)
                scores[best[part.dynamic_mask.keep :]] = -np.inf
            weights = np.exp(scores - scores.max())
            result[head] = weights / weights.sum() @ values[:, shared]
        return result
