"""What is measured of every engine, and what ours should reach; measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cpu.limits import fastest
from cpu.shapes import Shape

PROMPT, PREFILL, WIDTH = 64, 512, 4
LIMIT_SHARE = 0.8
"""Of the limit: what is asked for where a multiple of the peers would be more than that."""


@dataclass(frozen=True)
class Measure:
    """One figure in tokens per second."""

    name: str
    task: str  # "decode", "prefill" or "beam"
    batch: int = 1

    def request(self, shape: Shape, new: int | None = None) -> dict[str, Any]:
        """What an engine is asked for it."""
        wanted = new or shape.new
        return {
            "decode": {"task": "decode", "batch": self.batch, "prompt": PROMPT, "new": wanted},
            "prefill": {"task": "prefill", "prompt": PREFILL},
            "beam": {"task": "beam", "width": WIDTH, "prompt": PROMPT, "new": wanted},
        }[self.task]

    def limit(self, shape: Shape, precision: str, limits: Mapping[str, float]) -> float | None:
        """What the machine allows; beams have none of their own."""
        if self.task == "beam":
            return None
        prefill = PREFILL if self.task == "prefill" else 0
        return fastest(shape, precision, self.batch, prefill, dict(limits))

    def factor(self, shape: Shape, precision: str) -> float | None:
        """How many times the best peer with weights of the same size."""
        if self.task == "prefill":
            return 1.3
        if self.task == "beam":
            return None
        if self.batch == 1:
            return 1.0 if shape.large else 1.3
        if shape.large:
            return 2.0
        return {"float32": 2.0, "int8": 4.0}.get(precision, 3.0)

    def factor_of_transformers(self, shape: Shape) -> float | None:
        """How many times transformers in its best precision."""
        if self.task == "beam":
            return None
        if self.task == "prefill":
            return 2.0
        return 25.0 if shape.family == "Doge" and self.batch == 1 else 4.0


def measures(shape: Shape, tasks: list[str], batches: list[int]) -> list[Measure]:
    """Those of one shape."""
    found = [Measure(f"batch {batch}", "decode", batch) for batch in batches] if "decode" in tasks else []
    if "prefill" in tasks:
        found.append(Measure(f"prefill {PREFILL}", "prefill"))
    if "beam" in tasks and shape.beams:
        found.append(Measure(f"beam {WIDTH}", "beam"))
    return found


def target(factor: float | None, peer: float | None, limit: float | None) -> float | None:
    """Tokens per second to reach: a multiple of a peer, or 0.8 of the limit where that is less."""
    bounds = [factor * peer] if factor and peer else []
    if limit and factor:
        bounds.append(LIMIT_SHARE * limit)
    return min(bounds, default=None)
