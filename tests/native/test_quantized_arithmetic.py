"""int8 and int4 products against the arithmetic that the headers state, written again in numpy on the packed bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

core = pytest.importorskip("loquent.native._core", reason="the native core is not built (make native)")

PANEL, GROUP, LAYER = 32, 32, 1
SIZES = [(1, 1), (5, 31), (33, 32), (64, 100), (71, 288)]


def packed(kind: str, rows: int, columns: int) -> tuple[Any, NDArray[np.float32]]:
    """A matrix of random numbers, and the numbers."""
    numbers = np.random.default_rng(rows * columns).standard_normal((rows, columns), dtype=np.float32)
    matrix = core.Matrix(kind, rows, columns)
    matrix.fill(0, numbers, "float32")
    return matrix, numbers


def product(matrix: Any, tokens: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Some rows and their products with a matrix, through a plan whose head it is."""
    embedding, _ = packed("float32", matrix.rows, matrix.columns)
    plan = core.Plan(matrix.rows, matrix.columns)
    plan.embed(embedding, None)
    plan.head(matrix, None, core.Norm(np.ones(matrix.columns, np.float32), None, 1e-5), last_layer=LAYER)
    ids = np.arange(tokens, dtype=np.int64) % matrix.rows
    store = core.Store([(1, 1, False)], 16, "float32", [([0], 0, -1)])
    store.resize(0, 1)
    tables = (np.zeros(1, np.int64),)
    segment = SimpleNamespace(tokens=ids, start=0, tables=tables, rows=tokens, choice=None, scored=None)
    logits, hidden, _ = plan.run(store, [segment], None, [LAYER])
    return hidden[LAYER], np.array(logits)


def quantized(rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Inputs as int8, and a scale for each row."""
    most = np.abs(rows).max(1, keepdims=True)
    return np.rint(rows * (np.float32(127) / most)).astype(np.int64), (most / np.float32(127))[:, 0]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_int8(rows: int, columns: int) -> None:
    matrix, numbers = packed("int8", rows, columns)
    panels, quads = -(-rows // PANEL), -(-columns // 4)
    bytes_ = matrix.data.view(np.int8).reshape(panels, quads, PANEL, 4)
    weights = bytes_.transpose(0, 2, 1, 3).reshape(panels * PANEL, quads * 4).astype(np.int64)
    assert (np.abs(weights) <= 127).all()
    assert not weights[rows:].any()
    assert not weights[:, columns:].any()
    scales = matrix.scales[:rows, None]
    assert (np.abs(weights[:rows, :columns] * scales - numbers) <= scales / 2 * (1 + 1e-5)).all()
    assert (matrix.sums == 128 * weights.sum(1)).all()
    inputs, logits = product(matrix, 7)
    ints, input_scales = quantized(inputs)
    sums = (ints @ weights[:rows, :columns].T).astype(np.float32)
    np.testing.assert_array_equal(logits, sums * (input_scales[:, None] * matrix.scales[:rows]))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_int4(rows: int, columns: int) -> None:
    matrix, numbers = packed("int4", rows, columns)
    panels, groups = -(-rows // PANEL), -(-columns // GROUP)
    blocks = matrix.data.reshape(panels, groups, 640)
    bytes_ = blocks[:, :, :512].reshape(panels, groups, 4, PANEL, 4)
    halves = np.stack([bytes_ & 15, bytes_ >> 4], axis=3)  # (panels, groups, 4, 2, 32, 4): inputs 8 j + 4 half + i
    ints = halves.transpose(0, 4, 1, 2, 3, 5).reshape(panels * PANEL, groups, GROUP).astype(np.int64)
    halfs = np.ascontiguousarray(blocks[:, :, 512:]).view(np.float16).reshape(panels, groups, 2, PANEL)
    scales, minima = (halfs[:, :, i].transpose(0, 2, 1).reshape(-1, groups)[:rows] for i in (0, 1))
    dequantized = scales[..., None].astype(np.float32) * ints[:rows] + minima[..., None].astype(np.float32)
    flat = dequantized.reshape(rows, -1)[:, :columns]
    np.testing.assert_allclose(np.stack([matrix.row(row) for row in range(rows)]), flat, rtol=1e-6, atol=1e-7)
    assert np.abs(flat - numbers).mean() < 0.12  # a range of about four deviations in fifteen steps

    inputs, logits = product(matrix, 7)
    quants, input_scales = quantized(inputs)
    padded = np.zeros((len(inputs), groups * GROUP), np.int64)
    padded[:, :columns] = quants
    grouped = padded.reshape(-1, groups, GROUP)
    expected = np.zeros(logits.shape, np.float32)
    for group in range(groups):  # each addition is rounded once, as the processor's fused one is
        dots = (grouped[:, group] @ ints[:rows, group].T).astype(np.float64)
        expected = (dots * scales[:, group].astype(np.float64) + expected).astype(np.float32)
        shift = grouped[:, group].sum(1)[:, None] * minima[:, group].astype(np.float64)
        expected = (shift + expected).astype(np.float32)
    np.testing.assert_allclose(logits, expected * input_scales[:, None], rtol=3e-7, atol=1e-6)
