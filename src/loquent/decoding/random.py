"""Counter-based random numbers: each is a function of a seed, a position and a purpose, and of nothing drawn before.

Philox4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds of two 32-bit products
and a key schedule turn a 128-bit counter and a 64-bit key into 128 random bits.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
from numbers import Integral
from typing import Any

from loquent.errors import ArgumentError

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85


class Purpose(enum.IntEnum):
    """What a random number is for; numbers for different purposes are independent."""

    DRAW = 0  # the next token
    ACCEPT = 1  # whether a drafted token stands
    RESAMPLE = 2  # what replaces one that does not
    BRANCH = 3  # the seed of one of several sequences from one prompt
    FRESH = 4  # the seed of a request that was given none
    DRAFT = 5  # a drafted token
    GUMBEL = 6  # one of several different tokens drawn at once
    XTC = 7  # whether the rule of that name acts


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox4x32 on four 32-bit counter words and two 32-bit key words."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (second >> 32) ^ b ^ left, second & _MASK, (first >> 32) ^ d ^ right, first & _MASK
        left, right = (left + _KEY_STEPS[0]) & _MASK, (right + _KEY_STEPS[1]) & _MASK
    return a, b, c, d


def bits(seed: int, position: int, purpose: Purpose, index: int = 0) -> int:
    """64 random bits; `index` (32 bits) tells several numbers for one purpose apart."""
    counter = position & _MASK, (position >> 32) & _MASK, int(purpose), index & _MASK
    a, b, _, _ = philox(counter, (seed & _MASK, (seed >> 32) & _MASK))
    return b << 32 | a


def uniform(seed: int, position: int, purpose: Purpose, index: int = 0) -> float:
    """A random number in [0, 1), a multiple of 2**-53."""
    return (bits(seed, position, purpose, index) >> 11) * 2.0**-53


def branch_seed(seed: int, branch: int) -> int:
    """The seed of sequence `branch` of several made from one prompt; the first keeps the prompt's own."""
    return seed if branch == 0 else bits(seed, branch, Purpose.BRANCH)


class _Fresh:
    """Seeds for requests that name none: unpredictable at first, a fixed series after `set_seed`.

    Where torch is in use they are drawn from its generator, so that `torch.manual_seed` fixes them too, as programs
    expect that sample with torch models.
    """

    def __init__(self) -> None:
        self.seed, self.count, self.lock = int.from_bytes(os.urandom(8), "little"), 0, threading.Lock()

    def next(self) -> int:
        torch = sys.modules.get("torch")
        if torch is not None:
            drawn = torch.randint(2**63 - 1, (), generator=torch.default_generator, device="cpu")
            return bits(int(drawn), 0, Purpose.FRESH)
        with self.lock:
            self.count += 1
            return bits(self.seed, self.count, Purpose.FRESH)


_fresh = _Fresh()


def fresh_seed() -> int:
    """The next seed for a request that names none."""
    return _fresh.next()


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Make what follows repeatable: requests without a `seed`, and the generators of `random`, numpy and torch.

    Args:
        seed: any non-negative integer.
        deterministic: also ask torch for deterministic algorithms.

    Raises:
        ArgumentError: the seed is negative or no integer.
    """
    given: Any = seed
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 0:
        raise ArgumentError(f"seed={given!r} must be a non-negative integer.")
    seed = int(given)
    import random

    import numpy as np

    with _fresh.lock:
        _fresh.seed, _fresh.count = seed, 0
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        import torch  # even if nothing has used it yet: what will, may rely on the seed
    except ImportError:
        return
    torch.manual_seed(seed % 2**64)  # seeds every accelerator too
    if deterministic:
        torch.use_deterministic_algorithms(True)
