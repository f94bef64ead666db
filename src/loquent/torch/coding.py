"""Numbers in a few bits: groups of them as a minimum, a step and codes, bit by bit as `docs/memory.md` says.

Nothing here knows of pages. All arithmetic is in float32; a minimum is rounded down to a float16 and a step up, so that
no number of a group is further than half a step from one that codes stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.cache import levels

_LARGEST = 65504.0  # of float16


def encode(numbers: Tensor, bits: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Code float32 numbers, each group being a row along `axis`.

    Returns:
        The codes, uint8, in the shape of `numbers`, and each group's minimum (what code 0 stands for) and step,
        float16, in that shape without the axis. The step of a group with a number that is not finite is not a number.
    """
    top, (inset, steps_to_high) = (1 << bits) - 1, levels(bits)
    low, high = numbers.amin(axis, keepdim=True), numbers.amax(axis, keepdim=True)
    minimum = _round_half(low + inset * (high - low) if inset else low, up=False)
    step = _round_half((high - minimum.float()) / steps_to_high, up=True)
    is_finite = low.isfinite() & high.isfinite()
    minimum = torch.where(is_finite, minimum, 0.0)
    steps = torch.where(is_finite, step, 0.0).float()
    codes = ((numbers - minimum.float()) / steps).round_().clamp_(0, top)
    codes = torch.where(steps == 0, 0.0, codes).to(torch.uint8)
    return codes, minimum.squeeze(axis), torch.where(is_finite, step, float("nan")).squeeze(axis)


def decode(codes: Tensor, minimum: Tensor, step: Tensor, out: Tensor) -> None:
    """Write the numbers that codes stand for to `out`, in any type; `minimum` and `step` broadcast to the codes."""
    numbers = out if out.dtype == torch.float32 else torch.empty_like(codes, dtype=torch.float32)
    numbers.copy_(codes).mul_(step.float()).add_(minimum.float())  # two roundings, everywhere
    if numbers is not out:
        out.copy_(numbers)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (count, size, ...) in bytes (count, size * bits / 8, ...); the size is a multiple of 8.

    A byte has codes that are `size * bits / 8` apart, the first in its lowest bits.
    """
    parts = codes.view(len(codes), 8 // bits, -1, *codes.shape[2:]).unbind(1)
    packed = parts[0].clone()
    for place, part in enumerate(parts[1:], start=1):
        packed |= part << place * bits
    return packed


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The codes that `pack` was given."""
    if bits == 8:
        return packed
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    parts = packed.unsqueeze(1) >> shifts.view(1, -1, *[1] * (packed.dim() - 1))
    return (parts & (1 << bits) - 1).flatten(1, 2)


def _round_half(numbers: Tensor, *, up: bool) -> Tensor:
    """The largest float16 that is not above a number, or the smallest one not below it, of those that are finite."""
    near = numbers.to(torch.float16)
    wrong = near.float() < numbers if up else near.float() > numbers
    # As integers, the next float16 away from zero is one more, the next towards it one less.
    patterns = near.view(torch.int16)
    away = (patterns >= 0) if up else (patterns < 0)
    moved = torch.where(away, patterns + 1, patterns - 1)
    moved = torch.where(near == 0, 1 if up else 1 - (1 << 15), moved)
    return torch.where(wrong, moved, patterns).view(torch.float16).clamp(-_LARGEST, _LARGEST)
