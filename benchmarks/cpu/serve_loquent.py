"""Loquent as an engine, through what `loquent.load` gives.

python -m cpu.serve_loquent FOLDER PRECISION THREADS    serves; the threads are those of LOQUENT_THREADS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import loquent
from cpu.protocol import Prompt, Rate, prompts, serve

PROFILED_PROMPT, PROFILED_STEPS = 64, 33


class Loquent:
    """A loaded model, used by its ids; whatever runs it is the library's choice."""

    version = f"Loquent {loquent.__version__}"

    def __init__(self, folder: str, precision: Any) -> None:
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
        rows = prompts(batch, PROFILED_PROMPT, 0)
        self.decode(rows, 2)  # the prompts' beginnings are remembered from here on
        parts = []
        for title, work in (
            (f"{PROFILED_STEPS} steps", lambda: self.decode(rows, PROFILED_STEPS)),
            ("prefill of 512", lambda: self.prefill(prompts(1, 512, 1)[0])),
        ):
            backend.profile()
            start = time.perf_counter()
            work()
            wall = time.perf_counter() - start
            parts.append(f"  {title}: {1e3 * wall:,.1f} ms\n{stages(backend.profile(), wall)}")
        return "\n".join(parts)


def stages(timings: Sequence[tuple[str, int, float]], wall: float) -> str:
    """The operations, the slowest first, and the rest of the wall time."""
    spent = sum(seconds for _, _, seconds in timings)
    lines = [
        f"    {name:<28} {calls:>6,} calls of {1e6 * seconds / max(calls, 1):>9,.1f} us {seconds / wall:>7.1%}"
        for name, calls, seconds in sorted(timings, key=lambda timing: -timing[2])
    ]
    return "\n".join([*lines, f"    {'around the plan':<52} {1 - spent / wall:>7.1%}"])


if __name__ == "__main__":
    serve(Loquent(sys.argv[1], sys.argv[2]))
