"""What the machine allows, measured by a small C++ program in the same run; knows nothing of engines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cpu.engines import BENCHMARKS, Places
from cpu.processes import Child
from cpu.shapes import Shape

ARITHMETIC = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8", "int4": "int8"}
"""The products that each precision of weights is multiplied with."""


def program(places: Places) -> Path | None:
    """The compiled program, or None where there is no compiler."""
    source = BENCHMARKS / "cpu" / "limits.cpp"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        print("  no C++ compiler: the limits are not measured", file=sys.stderr)
        return None

    def build(draft: Path) -> None:
        options = ["-O3", "-march=native", "-std=c++17", "-pthread"]
        subprocess.run([compiler, *options, str(source), "-o", str(draft)], check=True)

    return places.made(places.work / f"limits-{int(source.stat().st_mtime)}", build)


class Limits:
    """The program, asked about shapes."""

    def __init__(self, places: Places, threads: int) -> None:
        path = program(places)
        self._child = path and Child([str(path), str(threads)], dict(os.environ))

    def measure(self, shape: Shape, precisions: tuple[str, ...]) -> dict[str, float]:
        """Seconds to read the shape's weights, and operations per second, by "read PRECISION" and "do KIND"."""
        if not self._child:
            return {}
        found = {f"read {p}": float(self._child.ask_line(f"read {shape.bytes(p)}")) for p in precisions}
        kinds = {ARITHMETIC[precision] for precision in precisions}
        return {**found, **{f"do {kind}": float(self._child.ask_line(kind)) for kind in sorted(kinds)}}

    def close(self) -> None:
        if self._child:
            self._child.close()


def fastest(shape: Shape, precision: str, batch: int, prefill: int, limits: dict[str, float]) -> float | None:
    """Tokens per second that the measured limits allow: `batch` rows a step, or a prompt of `prefill` tokens.

    The slower of reading every weight once and multiplying it for every row; attention is not counted, and a prompt
    needs the head for its last token only.
    """
    if not limits:
        return None
    read, rate = limits[f"read {precision}"], limits[f"do {ARITHMETIC[precision]}"]
    if prefill:
        layers = shape.weights - shape.head_weights
        return prefill / max(read, 2 * (prefill * layers + shape.head_weights) / rate)
    return batch / max(read, 2 * batch * shape.weights / rate)
