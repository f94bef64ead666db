"""Weights that another library lends: matrices read where they are or packed into copies, vectors always copied."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loquent.engine.lending import Lent, Loan
from loquent.native.backend import NativeBackend
from loquent.native.extension import core

if TYPE_CHECKING:
    from loquent.native._core import Matrix


class LentWeights:
    """The `loquent.native.weights.Weights` of a loan, and the `Changes` of them."""

    def __init__(self, loan: Loan) -> None:
        self._loan = loan
        self._matrices: dict[str, Matrix] = {}
        self._version, self._looking = 0, Lock()

    def matrix(self, name: str) -> Matrix:
        """The matrix over its owner's memory, or its packed copy, made once and again when its numbers changed."""
        matrix = self._matrices.get(name)  # which another thread's look may drop meanwhile
        if matrix is None:
            lent = self._loan.weights[name]
            matrix = self._matrices[name] = _packed(lent) if self._loan.packed else _in_place(lent)
        return matrix

    def vector(self, name: str) -> NDArray[np.float32]:
        """A copy in float32."""
        lent = self._loan.weights[name]
        if lent.kind == "bfloat16":
            widened: NDArray[np.uint32] = np.ascontiguousarray(lent.numbers).astype(np.uint32)
            return (widened << 16).view(np.float32)
        return np.array(lent.numbers, np.float32, order="C")

    @property
    def version(self) -> int:
        """How often weights were found changed."""
        return self._version

    def look(self) -> int:
        """Look for changes, and the version then; copies of what has changed are made anew."""
        with self._looking:
            names = self._loan.changed()
            if self._loan.packed:
                for name in names:
                    self._matrices.pop(name, None)
            self._version += bool(names)
            return self._version


def borrowing_backend(loan: Loan) -> NativeBackend:
    """A backend over lent weights.

    Raises:
        NativeError: the native core is not there, or the composition has no plan.
    """
    weights = LentWeights(loan)
    return NativeBackend(loan.decoder, weights, changes=weights, as_array=loan.as_array)


def _in_place(lent: Lent) -> Matrix:
    numbers = lent.numbers
    rows, columns = numbers.shape
    stride = numbers.strides[0] // numbers.itemsize
    matrix: Matrix = core().Matrix.row_by_row(lent.kind, numbers.ctypes.data, rows, columns, stride, numbers)
    return matrix


def _packed(lent: Lent) -> Matrix:
    rows, columns = lent.numbers.shape
    matrix: Matrix = core().Matrix(lent.kind, rows, columns)
    matrix.fill(0, lent.numbers, lent.kind)
    return matrix
