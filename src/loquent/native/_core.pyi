"""What the compiled extension has (src/module.cpp); its classes know nothing of families, requests or files."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from loquent.engine.backend import Segment

def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def threads() -> int: ...
def set_threads(threads: int) -> None: ...
def usable_threads() -> int: ...

@final
class Matrix:
    kind: str
    rows: int
    columns: int
    packed: bool
    nbytes: int
    data: NDArray[np.uint8]
    scales: NDArray[np.float32] | None
    sums: NDArray[np.int32] | None
    def __init__(self, kind: str, rows: int, columns: int) -> None: ...
    def fill(self, first_row: int, source: NDArray[Any], kind: str) -> None: ...
    @staticmethod
    def mapped(
        kind: str,
        rows: int,
        columns: int,
        data: NDArray[Any],
        scales: NDArray[np.float32] | None = None,
        sums: NDArray[np.int32] | None = None,
    ) -> Matrix: ...
    @staticmethod
    def row_by_row(kind: str, address: int, rows: int, columns: int, row_stride: int, owner: object) -> Matrix: ...
    def row(self, index: int) -> NDArray[np.float32]: ...

@final
class Norm:
    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, epsilon: float) -> None: ...

class DiskFullError(Exception): ...

@final
class Store:
    def __init__(
        self,
        layers: Sequence[tuple[int, int, bool]],
        page_size: int,
        kind: str,
        groups: Sequence[tuple[Sequence[int], int, int]],
        bits: int = 0,
        file: int | None = None,
    ) -> None: ...
    def bytes_per_page(self, group: int) -> int: ...
    def pages(self, group: int) -> int: ...
    def resize(self, group: int, pages: int) -> None: ...
    def clear(self, group: int, pages: Sequence[int]) -> None: ...
    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None: ...
    def read_pages(self, group: int, pages: Sequence[int]) -> NDArray[np.uint8]: ...
    def write_pages(self, group: int, pages: Sequence[int], content: NDArray[np.uint8]) -> None: ...

@final
class Plan:
    def __init__(self, vocabulary: int, width: int) -> None: ...
    def buffer(self, name: str, width: int) -> None: ...
    def rotary(self) -> int: ...
    def table(self, frequencies: NDArray[np.float32], factor: float) -> int: ...
    def embed(self, tokens: Matrix, positions: Matrix | None) -> None: ...
    def normalize(self, source: str, target: str, norm: Norm) -> None: ...
    def linear(
        self,
        source: str,
        target: str,
        matrix: Matrix,
        bias: NDArray[np.float32] | None = None,
        *,
        norm: Norm | None = None,
        activation: str | None = None,
        slope: float = 0.0,
        gated: bool = False,
        residual: bool = False,
        decay: NDArray[np.float32] | None = None,
    ) -> None: ...
    def attention(
        self,
        source: str,
        target: str,
        *,
        layer: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        window: int = 0,
        rotary: int = -1,
        query_norm: NDArray[np.float32] | None = None,
        key_norm: NDArray[np.float32] | None = None,
        norm_epsilon: float = 0.0,
        keep: int = 0,
        mask_decay: NDArray[np.float32] | None = None,
        mask_step: NDArray[np.float32] | None = None,
        mask_bias: NDArray[np.float32] | None = None,
    ) -> None: ...
    def experts(
        self,
        source: str,
        router_logits: str,
        target: str,
        *,
        down: Matrix,
        up: Matrix,
        chosen: int,
        normalized: bool,
        activation: str,
        slope: float = 0.0,
    ) -> None: ...
    def narrow(self, buffers: Sequence[str]) -> None: ...
    def keep(self, layer: int) -> None: ...
    def head(self, matrix: Matrix, bias: NDArray[np.float32] | None, norm: Norm, *, last_layer: int) -> None: ...
    def run(
        self,
        store: Store,
        segments: Sequence[Segment],
        tables: list[list[int]] | None,
        hidden_layers: Sequence[int],
    ) -> tuple[NDArray[np.float32], dict[int, NDArray[np.float32]], list[Any]]: ...
    def score(self, states: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def profile(self) -> list[tuple[str, int, float]]: ...

def choose(row: NDArray[np.float32], choice: object) -> Any: ...
