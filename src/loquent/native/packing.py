"""Writes a model's weights into a packed folder (`loquent.native.mapping`), a matrix at a time; quantizes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loquent.hub.files import leave_cache
from loquent.hub.writing import TensorToWrite, write_checkpoint
from loquent.native.checkpoint import is_matrix, shapes_of
from loquent.native.mapping import ALIGNMENT, matrix_entries, metadata_of
from loquent.native.weights import Weights

if TYPE_CHECKING:
    from loquent.native._core import Matrix
    from loquent.parts import Decoder


def write_packed(folder: Path, weights: Weights, decoder: Decoder, precision: str, max_shard_size: int | str) -> None:
    """Write a model's weights into a folder, a matrix in memory at a time where they are packed as they are asked for.

    Raises:
        ArgumentError: `max_shard_size` is no size.
    """
    tensors = _tensors(weights, decoder, precision)
    metadata = metadata_of(precision, shapes_of(decoder))
    for path in write_checkpoint(
        folder, tensors, max_shard_size=max_shard_size, metadata=metadata, alignment=ALIGNMENT
    ):
        leave_cache(path)


def _tensors(weights: Weights, decoder: Decoder, precision: str) -> Iterator[TensorToWrite]:
    shapes, packed = shapes_of(decoder), _LastMatrix(weights)
    for name in (name for name, shape in shapes.items() if is_matrix(name, shape)):
        for entry, (dtype, shape) in matrix_entries(name, shapes[name], precision).items():
            yield TensorToWrite(entry, dtype, shape, packed.reader(name, entry.removeprefix(name)))
    # Vectors come last: their sizes are no multiples of the alignment.
    for name in (name for name, shape in shapes.items() if not is_matrix(name, shape)):
        yield TensorToWrite(name, "F32", shapes[name], _reader(weights, name))


class _LastMatrix:
    """The matrix whose tensors are being written; those before it are let go."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._name = ""
        self._matrix: Matrix | None = None

    def reader(self, name: str, part: str) -> Callable[[], Any]:
        """Gives a part of a matrix: "", ".scales" or ".sums"."""

        def read() -> Any:
            if self._matrix is None or name != self._name:
                self._matrix = None
                self._matrix, self._name = self._weights.matrix(name), name
            return {"": self._matrix.data, ".scales": self._matrix.scales, ".sums": self._matrix.sums}[part]

        return read


def _reader(weights: Weights, name: str) -> Callable[[], Any]:
    return lambda: np.ascontiguousarray(weights.vector(name))
