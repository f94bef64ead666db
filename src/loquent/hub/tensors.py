"""A tensor as bytes with a type and a shape, outside of any tensor library; converts nothing.

The types are those of the safetensors format (https://huggingface.co/docs/safetensors). numpy has no bfloat16 and no
8-bit floats, so bytes are what every backend can read without loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DTYPE_SIZES: dict[str, int] = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "BF16": 2,
    "F16": 2,
    "I16": 2,
    "U16": 2,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
}
"""Bytes per element of each type."""

_NUMPY = {
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
    "F32": "<f4",
    "I32": "<i4",
    "U32": "<u4",
    "F16": "<f2",
    "I16": "<i2",
    "U16": "<u2",
    "U8": "u1",
    "I8": "i1",
    "BOOL": "?",
    # Raw bits of the types that numpy lacks.
    "BF16": "<u2",
    "F8_E5M2": "u1",
    "F8_E4M3": "u1",
}


@dataclass(frozen=True)
class TensorView:
    """A tensor in a file: its bytes are read from the disk when they are first touched.

    dtype: the safetensors name of the type, such as "BF16".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    _bytes: Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return prod(self.shape) * DTYPE_SIZES[self.dtype]

    def bytes(self) -> memoryview:
        """The elements in row-major order, little-endian.

        The bytes are mapped from the file where it stores them so, and are valid as long as something refers to
        them. Writing to them changes neither the file nor another view of it made later.
        """
        return self._bytes()

    def numpy(self) -> NDArray[Any]:
        """The tensor as an array over the same bytes; BF16 as uint16, 8-bit floats as uint8: their bits."""
        import numpy as np

        if not self.nbytes:
            return np.zeros(self.shape, dtype=_NUMPY[self.dtype])
        array: NDArray[np.generic] = np.frombuffer(self.bytes(), dtype=_NUMPY[self.dtype])
        return array.reshape(self.shape)
