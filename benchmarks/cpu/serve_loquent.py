"""Loquent as an engine, through what `loquent.load` gives.

python -m cpu.serve_loquent FOLDER PRECISION THREADS    serves; the threads are those of LOQUENT_THREADS
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import loquent
from cpu.protocol import Prompt, Rate, prompts, serve
from cpu.shapes import BYTES_PER_WEIGHT

PROFILED_PROMPT, PROFILED_STEPS = 64, 33


class Loquent:
    """A loaded model, used by its ids; whatever runs it is the library's choice."""

    version = f"Loquent {loquent.__version__}"

    def __init__(self, folder: str, precision: Any) -> None:
        self.precision = precision
        self.model = loquent.load(folder, precision=precision, device="cpu").model

    def generate(self, rows: Sequence[Prompt], new: int, **options: Any) -> list[list[int]]:
        from loquent.generation import generate

        ids: list[list[int]] = generate(self.model, [*rows], max_new_tokens=new, do_sample=False, **options).tolist()
        return [row[len(prompt) :] for row, prompt in zip(ids, rows)]

    def decode(self, prompts: Sequence[Prompt], new: int) -> Rate:
        from loquent.generation import stream

        rate = Rate(len(prompts), new)
        for event in stream(self.model, [*prompts], max_new_tokens=new, do_sample=False):
            rate.tick(event.row, len(event.tokens))
        return rate

    def prefill(self, prompt: Prompt) -> None:
        self.generate([prompt], 1)

    def beam(self, prompt: Prompt, width: int, new: int) -> None:
        self.generate([prompt], new, num_beams=width)

    def greedy(self, prompt: Prompt, new: int) -> list[int]:
        return self.generate([prompt], new)[0]

    def profile(self, batch: int) -> str:
        """What the plan spends on each of its operations, and what is spent around it."""
        from loquent.generation import engine_of

        backend: Any = engine_of(self.model).backend
        if not hasattr(backend, "profile"):
            raise NotImplementedError
        weight_bytes = BYTES_PER_WEIGHT[self.precision]

        def report(title: str, work: Callable[[], object], read: int, wanted: int) -> list[str]:
            backend.profile()
            start = time.perf_counter()
            work()
            wall = time.perf_counter() - start
            lines = stages(backend.profile(), wall, read, wanted, weight_bytes)
            return [f"  {title}: {1e3 * wall:,.1f} ms", *lines]

        events = self._behind_prompts(prompts(batch, PROFILED_PROMPT, 0), PROFILED_STEPS + 1)
        steps = report(f"{PROFILED_STEPS} steps of {batch}", lambda: deque(events, maxlen=0), batch, batch)
        prefill = report("prefill of 512", lambda: self.prefill(prompts(1, 512, 1)[0]), 512, 1)
        return "\n".join([*steps, *prefill])

    def _behind_prompts(self, prompts: Sequence[Prompt], new: int) -> Iterator[Any]:
        """What is still to come of decoding once every row has its first token."""
        from loquent.generation import stream

        events = stream(self.model, [*prompts], max_new_tokens=new, do_sample=False)
        started: set[int] = set()
        while len(started) < len(prompts):
            started.add(next(events).row)
        return events


@dataclass
class Stage:
    """All operations of one name."""

    calls: int = 0
    seconds: float = 0.0
    bytes: float = 0.0  # of weights that they read
    products: float = 0.0  # multiplications and additions


def stages(
    timings: Sequence[tuple[str, int, float]], wall: float, rows: int, wanted: int, weight_bytes: float
) -> list[str]:
    """The operations of each name, the slowest first, and the rest of the wall time.

    What products read and do in a second is for `rows` rows a call, and `wanted` rows behind the plan's "narrow", where
    rows that nobody wants leave it.
    """
    found: defaultdict[str, Stage] = defaultdict(Stage)
    for name, calls, seconds in timings:
        stage = found[name]
        stage.calls += calls
        stage.seconds += seconds
        rows = wanted if name == "narrow" else rows
        if size := re.search(r" (\d+)x(\d+)$", name):
            weights = calls * int(size[1]) * int(size[2])
            stage.bytes += weight_bytes * weights
            stage.products += 2 * rows * weights
    lines = []
    for name, stage in sorted(found.items(), key=lambda item: -item[1].seconds):
        each = 1e6 * stage.seconds / max(stage.calls, 1)
        line = f"    {name:<28} {stage.calls:>6,} calls of {each:>9,.1f} us {stage.seconds / wall:>7.1%}"
        if stage.bytes and stage.seconds:
            line += f" {stage.bytes / stage.seconds / 1e9:>6,.1f} GB/s"
            line += f" {stage.products / stage.seconds / 1e9:>7,.0f} GOP/s"
        lines.append(line)
    spent = sum(stage.seconds for stage in found.values())
    return [*lines, f"    {'around the plan':<55} {1 - spent / wall:>7.1%}"]


if __name__ == "__main__":
    serve(Loquent(sys.argv[1], sys.argv[2]))
