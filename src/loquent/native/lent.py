"""Weights that another library lends: matrices read where they are or packed into copies, vectors always copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loquent.engine.lending import Lent, Loan
from loquent.native.backend import NativeBackend
from loquent.native.extension import core

if TYPE_CHECKING:
    from loquent.native._core import Matrix


class LentWeights:
    """The `loquent.native.weights.Weights` of a loan."""

    def __init__(self, loan: Loan) -> None:
        self._loan = loan
        self._matrices: dict[str, Matrix] = {}

    def matrix(self, name: str) -> Matrix:
        """The matrix over its owner's memory, or its packed copy, made once and again when its numbers changed."""
        if name not in self._matrices:
            lent = self._loan.weights[name]
            self._matrices[name] = _packed(lent) if self._loan.packed else _in_place(lent)
        return self._matrices[name]

    def vector(self, name: str) -> NDArray[np.float32]:
        """A copy in float32."""
        lent = self._loan.weights[name]
        if lent.kind == "bfloat16":
            widened: NDArray[np.uint32] = np.ascontiguousarray(lent.numbers).astype(np.uint32)
            return (widened << 16).view(np.float32)
        return np.array(lent.numbers, np.float32, order="C")

    def changed(self) -> bool:
        """Whether numbers have changed since this was last asked; copies of them are made anew."""
        names = self._loan.changed()
        if self._loan.packed:
            for name in names:
                self._matrices.pop(name, None)
        return bool(names)


def borrowing_backend(loan: Loan) -> NativeBackend:
    """A backend over lent weights.

    Raises:
        NativeError: the native core is not there, or the composition has no plan.
    """
    weights = LentWeights(loan)
    return NativeBackend(loan.decoder, weights, changed=weights.changed, as_array=loan.as_array)


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
