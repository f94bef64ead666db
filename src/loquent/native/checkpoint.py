"""The weights of a plain checkpoint, each packed as it is asked for; nothing is kept.

A tensor goes from its mapped file straight into a packed matrix, rows strided or transposed as they lie there. What a
type of numbers needs besides is a block of rows at a time, so that the memory taken is that of the packed matrices.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loquent.families import family_of
from loquent.hub.checkpoint import Checkpoint
from loquent.hub.matching import Match, match_tensors
from loquent.hub.tensors import DTYPE_SIZES, TensorView
from loquent.native.extension import core
from loquent.native.floats import FLOATS, KINDS, as_float32, check_float, check_range, row_blocks
from loquent.weights import Shapes, decoder_weights, head_weights

if TYPE_CHECKING:
    from loquent.config import PretrainedConfig
    from loquent.native._core import Matrix
    from loquent.parts import Decoder

_LARGEST = {"float16": 65504.0, "int8": float(np.finfo(np.float32).max), "int4": 65504.0}
"""The largest magnitude of a weight, where a precision has one; int4's scales are float16."""


def shapes_of(decoder: Decoder) -> Shapes:
    """Every weight of a composition with its head, by canonical name."""
    return decoder_weights(decoder) | head_weights(decoder)


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is held in the model's precision (see `loquent.native.weights.Weights`)."""
    return len(shape) == 2 and ".dynamic_mask." not in name


class CheckpointWeights:
    """The `loquent.native.weights.Weights` of a checkpoint in one precision.

    Args:
        config: the model's config.
        checkpoint: its open files.
        precision: one of `loquent.config.packing.PRECISIONS`.
        name: what the caller calls the model.

    Raises:
        CheckpointError: tensors are missing, unexpected, or of other shapes than the config says.
    """

    def __init__(
        self, config: PretrainedConfig, checkpoint: Checkpoint, precision: str, name: str | os.PathLike[str]
    ) -> None:
        family = family_of(config)
        self.decoder = family.compose(config)
        self.shapes = shapes_of(self.decoder)
        self.precision = precision
        self._checkpoint = checkpoint
        present = {theirs: view.shape for theirs, view in checkpoint.items()}
        matches, report = match_tensors(family.names(config), family.prefix, self.shapes, present)
        report.raise_if_any(name)
        self._matches: defaultdict[str, list[Match]] = defaultdict(list)
        for match in matches:
            check_float(checkpoint[match.theirs])
            self._matches[match.piece.ours].append(match)

    def matrix(self, name: str) -> Matrix:
        """The matrix, packed now.

        Raises:
            CheckpointError: it holds numbers that the precision cannot.
        """
        rows, columns = self.shapes[name]
        matrix: Matrix = core().Matrix(self.precision, rows, columns)
        for match in self._matches[name]:
            view = self._checkpoint[match.theirs]
            self._check(view)
            first = match.piece.rows[0] if match.piece.rows else 0
            _fill(matrix, first, match.piece.layout.to_ours(view.numpy()), view.dtype)
        return matrix

    def vector(self, name: str) -> NDArray[np.float32]:
        """The numbers in float32."""
        vector = np.empty(self.shapes[name], np.float32)
        for match in self._matches[name]:
            view = self._checkpoint[match.theirs]
            target = vector[match.piece.rows[0] : match.piece.rows[1]] if match.piece.rows else vector
            target[...] = as_float32(match.piece.layout.to_ours(view.numpy()), view.dtype)
        return vector

    def _check(self, view: TensorView) -> None:
        exact = self.precision == "float16" and (view.dtype == "F16" or DTYPE_SIZES[view.dtype] == 1)
        if self.precision in _LARGEST and not exact:
            check_range(view, self.precision, _LARGEST[self.precision])


def automatic_precision(config: PretrainedConfig, checkpoint: Checkpoint) -> str:
    """What precision="auto" means: the config's type, else that of the first tensor of floats in the files."""
    if config.dtype in KINDS.values():
        return str(config.dtype)
    stored = (view.dtype for view in checkpoint.values())
    found = next((dtype for dtype in stored if dtype in FLOATS and DTYPE_SIZES[dtype] > 1), "F32")
    return KINDS.get(found, "float32")


def _fill(matrix: Matrix, first: int, numbers: NDArray[Any], dtype: str) -> None:
    if dtype in KINDS and numbers.flags.aligned:
        matrix.fill(first, numbers, KINDS[dtype])
        return
    for start, stop in row_blocks(*numbers.shape):
        block = np.require(as_float32(numbers[start:stop], dtype), requirements="A")
        matrix.fill(first + start, block, "float32")
