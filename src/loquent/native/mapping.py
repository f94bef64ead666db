"""Packed folders: what is in them, and their weights mapped straight from disk; `packing` writes them.

Safetensors files under the canonical names. A matrix is its packed bytes (`Matrix.data`, layouts in src/matrix.hpp),
those of int8 with `.scales` and `.sums` beside them, each 64-byte aligned in the file; all else is float32. The header
says format, version, precision and layout, as config.json does too (`loquent.config.packing`), and the shapes of the
matrices, which sizes alone do not tell: rows are padded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loquent.config.packing import VERSION
from loquent.errors import CheckpointError
from loquent.hub.checkpoint import Checkpoint
from loquent.hub.report import LoadReport
from loquent.native.checkpoint import is_matrix, shapes_of
from loquent.native.extension import core
from loquent.weights import Shapes

if TYPE_CHECKING:
    from loquent.native._core import Matrix
    from loquent.parts import Decoder

ALIGNMENT = 64
_PANEL = 32
# A panel's bytes for each input, and how many inputs a layout packs together (src/matrix.hpp).
_INPUT_BYTES = {"float32": 128, "bfloat16": 64, "float16": 64, "int8": 32, "int4": 20}
_TOGETHER = {"float32": 1, "bfloat16": 2, "float16": 1, "int8": 4, "int4": 32}

_SHAPES = "shapes"
_AGAIN = "Run `loquent quantize` on the model that it was made from."
Entry = tuple[str, tuple[int, ...]]
"""The type and shape of a tensor in a file."""


def metadata_of(precision: str, shapes: Shapes) -> dict[str, str]:
    """What packed files say of themselves."""
    matrices = {name: list(shape) for name, shape in shapes.items() if is_matrix(name, shape)}
    return _kind_of(precision) | {_SHAPES: json.dumps(matrices, separators=(",", ":"))}


def _kind_of(precision: str) -> dict[str, str]:
    return {"format": "loquent", "version": str(VERSION), "precision": precision, "layout": f"panels of {_PANEL}"}


def entries_of(decoder: Decoder, precision: str) -> dict[str, Entry]:
    """Every tensor of a packed folder, from the composition alone."""
    entries: dict[str, Entry] = {}
    for name, shape in shapes_of(decoder).items():
        if is_matrix(name, shape):
            entries |= matrix_entries(name, shape, precision)
        else:
            entries[name] = "F32", shape
    return entries


def matrix_entries(name: str, shape: tuple[int, ...], precision: str) -> dict[str, Entry]:
    """The tensors of one matrix: its packed bytes, and those of int8 its scales and sums."""
    rows, columns = shape
    panels, together = -(-rows // _PANEL), _TOGETHER[precision]
    inputs = -(-columns // together) * together
    entries: dict[str, Entry] = {name: ("U8", (panels * inputs * _INPUT_BYTES[precision],))}
    if precision == "int8":
        entries |= {f"{name}.scales": ("F32", (panels * _PANEL,)), f"{name}.sums": ("I32", (panels * _PANEL,))}
    return entries


class MappedWeights:
    """The `loquent.native.weights.Weights` of a packed folder, over its mapped files: nothing is copied but vectors.

    Raises:
        CheckpointError: the files are of another version or precision, their tensors not those of the composition, or
            scales are not numbers.
    """

    def __init__(self, decoder: Decoder, checkpoint: Checkpoint, precision: str, name: str | os.PathLike[str]) -> None:
        self.decoder, self.precision, self.shapes = decoder, precision, shapes_of(decoder)
        self._checkpoint, self._name = checkpoint, name
        kind, expected = dict(checkpoint.metadata), _kind_of(precision)
        stored = kind.pop(_SHAPES, "")
        if kind != expected:
            raise CheckpointError(
                f"The files in {os.fspath(name)!r} say {kind}, and the config means {expected}. {_AGAIN}"
            )
        _compare(entries_of(decoder, precision), checkpoint, name)
        _compare_shapes(self.shapes, _read_shapes(stored, name), name)
        for one in checkpoint:
            if precision == "int8" and one.endswith(".scales"):
                _check_scales(checkpoint, one, name)

    def matrix(self, name: str) -> Matrix:
        """The matrix over the file's bytes.

        Raises:
            CheckpointError: they are not aligned.
        """
        parts = [self._mapped(name)]
        if self.precision == "int8":
            parts += [self._mapped(f"{name}.scales"), self._mapped(f"{name}.sums")]
        matrix: Matrix = core().Matrix.mapped(self.precision, *self.shapes[name], *parts)
        return matrix

    def vector(self, name: str) -> NDArray[np.float32]:
        """The numbers."""
        return np.array(self._checkpoint[name].numpy(), np.float32)

    def _mapped(self, name: str) -> NDArray[Any]:
        array = self._checkpoint[name].numpy()
        if array.__array_interface__["data"][0] % ALIGNMENT:
            raise CheckpointError(
                f"{name} in {os.fspath(self._name)!r} is not aligned to {ALIGNMENT} bytes, as another program may have "
                f"written it. {_AGAIN}"
            )
        return array


def _compare(expected: dict[str, Entry], checkpoint: Checkpoint, name: str | os.PathLike[str]) -> None:
    report = LoadReport()
    report.missing = [one for one in expected if one not in checkpoint]
    report.unexpected = [one for one in checkpoint if one not in expected]
    for one, (dtype, shape) in expected.items():
        if one in checkpoint and checkpoint[one].shape != shape:
            report.mismatched.append((one, checkpoint[one].shape, shape))
        elif one in checkpoint and checkpoint[one].dtype != dtype:
            raise CheckpointError(f"{one} in {os.fspath(name)!r} is {checkpoint[one].dtype}, not {dtype}. {_AGAIN}")
    report.raise_if_any(name)


def _read_shapes(stored: str, name: str | os.PathLike[str]) -> Mapping[str, Any]:
    try:
        shapes = json.loads(stored)
    except (ValueError, RecursionError):
        shapes = None
    if not isinstance(shapes, dict):
        raise CheckpointError(f"The files in {os.fspath(name)!r} do not say the shapes of their matrices. {_AGAIN}")
    return shapes


def _compare_shapes(wanted: Shapes, stored: Mapping[str, Any], name: str | os.PathLike[str]) -> None:
    report = LoadReport()
    for one, shape in wanted.items():
        if is_matrix(one, shape) and stored.get(one) != list(shape):
            found = stored.get(one)
            report.mismatched.append((one, tuple(found) if isinstance(found, list) else (), shape))
    report.raise_if_any(name)


def _check_scales(checkpoint: Checkpoint, scales: str, name: str | os.PathLike[str]) -> None:
    if not np.isfinite(checkpoint[scales].numpy()).all():
        raise CheckpointError(f"{scales} in {os.fspath(name)!r} holds numbers that are NaN or infinite. {_AGAIN}")
