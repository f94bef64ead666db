"""Numbers of every type that files store weights in, as float32; no matrices, no files."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.errors import CheckpointError
from loquent.hub.tensors import TensorView

FLOATS = frozenset({"F64", "F32", "BF16", "F16", "F8_E5M2", "F8_E4M3"})
"""The safetensors names of the types that weights have."""

KINDS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""What the core calls the types that it reads itself."""

_BLOCK = 1 << 20
"""How many numbers are looked at or converted at a time."""


def as_float32(bits: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Numbers as float32; `bits` are as `TensorView.numpy` gives them. Too large ones become infinite."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F8_E5M2":
        return (bits.astype(np.uint16) << np.uint16(8)).view(np.float16).astype(np.float32)
    if dtype == "F8_E4M3":
        numbers: NDArray[np.float32] = _e4m3()[bits]
        return numbers
    with np.errstate(over="ignore"):
        return np.asarray(bits, np.float32)


def check_float(view: TensorView) -> None:
    """Refuse tensors that cannot be weights.

    Raises:
        CheckpointError: it is of a type without fractions.
    """
    if view.dtype not in FLOATS:
        raise CheckpointError(f"{view.name} is of type {view.dtype}, which weights cannot have. Convert it to floats.")


def check_range(view: TensorView, precision: str, largest: float) -> None:
    """Refuse numbers that a precision cannot hold.

    Raises:
        CheckpointError: a number is none, infinite, or of a magnitude above `largest`.
    """
    flat = view.numpy().reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = as_float32(flat[start : start + _BLOCK], view.dtype)
        # What is no number is neither above nor below anything, and minima and maxima hand it on.
        if not (-largest <= block.min() and block.max() <= largest):
            wrong = block[~(np.abs(block) <= largest)][0]
            raise CheckpointError(
                f"{view.name} holds {wrong:g}, which precision={precision!r} cannot. Load it in 'float32', or mend "
                "the checkpoint."
            )


def row_blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    """The rows of a matrix in runs that are converted together: (first, behind the last)."""
    step = max(1, _BLOCK // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


@cache
def _e4m3() -> NDArray[np.float32]:
    """The numbers of the 256 patterns of OCP's E4M3 (bias 7, no infinities): arXiv:2209.05433, table 1."""
    patterns = np.arange(256)
    exponents, mantissas = patterns >> 3 & 15, patterns & 7
    magnitudes = np.where(exponents == 0, mantissas / 8 * 2.0**-6, (1 + mantissas / 8) * 2.0 ** (exponents - 7.0))
    magnitudes[(patterns & 127) == 127] = np.nan
    return np.where(patterns < 128, magnitudes, -magnitudes).astype(np.float32)
