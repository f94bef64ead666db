"""The time that a step takes around the model: scheduling, pages, delivery, strategies and events, in microseconds.

    python benchmarks/host.py

The backend does nothing and answers at once; what lies between two of its runs is counted. The table gives the fifth
and the fiftieth percentile over all steps but a run's first and last: on a busy machine the former is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from loquent import GenerationConfig
from loquent.cache import PLAIN, PageGroup, StoreKind
from loquent.engine import Forward, Segment
from loquent.generation import start

VOCABULARY = 50
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 1}
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("greedy, batch 1", 1, {}),
    ("greedy, batch 16", 16, {}),
    ("sampling, batch 1", 1, SAMPLING),
    ("sampling, batch 16", 16, SAMPLING),
    ("penalty, batch 16", 16, {"repetition_penalty": 1.2}),
    ("4 beams", 1, {"num_beams": 4}),
]


class NoStore:
    """Pages without memory."""

    page_size, place, format = 16, "memory", "none"
    groups = (PageGroup(1),)

    def __init__(self) -> None:
        self._pages = 0

    def pages(self, group: int) -> int:
        return self._pages

    def resize(self, group: int, pages: int) -> None:
        self._pages = pages

    def clear(self, group: int, pages: Sequence[int]) -> None:
        pass

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        pass


class NoModel:
    """A backend that gives the same rows and the same answers at once."""

    vocabulary, max_positions, incremental, layers = VOCABULARY, None, True, 1
    tied, multiplications, free_rows, host_work, row_work = True, 1, 1, 0, 0

    def __init__(self, selects: bool) -> None:
        self.selects = selects
        self.rows = np.tile(np.arange(VOCABULARY, dtype=np.float32) % 7, (64, 1))
        self.gaps: list[float] = []
        self._left = 0.0

    def describe(self) -> str:
        return "nothing"

    def free_memory(self) -> None:
        return None

    def weights_changed(self) -> bool:
        return False

    def open_store(self, page_size: int, kind: StoreKind = PLAIN) -> NoStore:
        return NoStore()

    def prefix_key(self, span: int) -> Hashable:
        return None

    def run(self, store: NoStore, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        self.gaps.append(time.perf_counter() - self._left)
        chosen = [self._chosen(segment) for segment in segments] if self.selects else []
        forward = Forward(self.rows[: sum(segment.logit_rows for segment in segments)], chosen=chosen)
        self._left = time.perf_counter()
        return forward

    def _chosen(self, segment: Segment) -> Any:
        if segment.choice is None:
            return None
        best = segment.choice.best
        return (np.arange(best), -np.arange(best, dtype=np.float32)) if best else 7


class Model:
    """What generation needs of a model."""

    decoder, device, dtype = SimpleNamespace(blocks=()), "cpu", "float32"

    gives_tensors = False

    def __init__(self, backend: NoModel) -> None:
        self.generation_config, self.backend = GenerationConfig(), backend

    def open_backend(self) -> NoModel:
        return self.backend

    def backend_key(self) -> Hashable:
        return None


def gaps(selects: bool, batch: int, options: dict[str, Any]) -> list[float]:
    """The time between runs, sorted, of 12 calls with 256 tokens behind prompts of 20."""
    model, found = Model(NoModel(selects)), []
    prompts = [[(31 * row + 7 * at) % VOCABULARY for at in range(20)] for row in range(batch)]
    for _ in range(12):
        model.backend.gaps.clear()
        for _ in start(model, prompts, max_new_tokens=256, **options).events():
            pass
        found += model.backend.gaps[4:-1]
    return sorted(found)


def main() -> None:
    print(f"{'':20}{'the backend selects':>26}{'the rules do, in numpy':>26}")
    for name, batch, options in CASES:
        cells = []
        for selects in (True, False):
            found = gaps(selects, batch, options)
            cells.append("".join(f"{1e6 * found[int(len(found) * share)]:13.1f}" for share in (0.05, 0.5)))
        print(f"{name:20}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
