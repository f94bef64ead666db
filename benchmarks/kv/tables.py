"""What is measured, and the results as tables on a terminal; measures nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from cpu.processes import MIB
from cpu.table import number, right_aligned
from kv.stores import MEMORY, PERPLEXITY, SPEED, Store

ROWS, CONTEXT = 8, 4096
GROWING = (4 << 10, 16 << 10, 64 << 10)
BUDGET = "256MiB"
CONTEXTS, NEW = (512, 4096), 64
NEAR, FAR = 128, 192
"""Lengths between which the bytes of a further token are measured: within every window, a whole page of all apart."""


@dataclass(frozen=True)
class Reader:
    """A trained model, and how much of the stories it reads."""

    name: str
    folder: Path
    positions: int
    window: int | None
    texts: int
    peers: bool  # whether the peer reads too; token by token, that takes its time


@dataclass
class Results:
    """All that was measured, as it was."""

    perplexity: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    growth: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    speed: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)

    def speeds(self, store: Store, context: int) -> float | None:
        values = self.speed.get((store.name, context))
        return median(values) if values else None


def perplexity_table(results: Results, readers: Sequence[Reader]) -> Table:
    columns = [head for reader in readers for head in (reader.name, "above", "B / further token", "B / token in all")]
    table = right_aligned("Perplexity on held-out stories, and bytes of keys and values", ["store"], columns)
    for store in PERPLEXITY:
        cells: list[str] = []
        for reader in readers:
            found = results.perplexity.get((reader.name, store.name))
            plain = next(other for other in PERPLEXITY if other.plain and other.library == store.library)
            exact = results.perplexity.get((reader.name, plain.name))
            if not found:
                cells += [""] * 4
                continue
            above = f"{found['perplexity'] / exact['perplexity'] - 1:+.2%}" if exact and not store.plain else ""
            cells += [f"{found['perplexity']:.3f}", above, number(found["further"]), number(found["whole"])]
        if any(cells):
            table.add_row(store.name, *cells)
    return table


def mib(count: float | None) -> str:
    return "" if count is None else f"{count / MIB:,.1f}"


def memory_table(results: Results) -> Table:
    title = f"{ROWS} rows of {CONTEXT:,} tokens: MiB more than after one row"
    columns = ["anonymous", "mapped files", "pages held", "computed", "of float32's"]
    table = right_aligned(title, ["store"], columns)
    plain = results.memory.get(MEMORY[0].name)
    for name, found in results.memory.items():
        grown = found["own"] + found["mapped"]
        share = grown / (plain["own"] + plain["mapped"]) if plain else None
        held = sum(found["parts"].values())
        row = [mib(found["own"]), mib(found["mapped"]), mib(held), mib(found["expected"])]
        table.add_row(name, *row, f"{share:.0%}" if share else "")
    return table


def growth_table(results: Results) -> Table:
    title = f"A text that grows: MiB more than after {GROWING[0]:,} tokens were read and forgotten"
    table = right_aligned(title, ["store", "tokens"], ["anonymous", "mapped files", "pages held", "seconds"])
    for (name, length), found in results.growth.items():
        held = sum(found["parts"].values())
        row = [mib(found["own"]), mib(found["mapped"]), mib(held), number(found["seconds"])]
        table.add_row(name, f"{length:,}", *row)
    return table


def speed_table(results: Results) -> Table:
    columns = [head for context in CONTEXTS for head in (f"behind {context:,}", "of plain")]
    table = right_aligned("Decoding one row: tokens per second, medians", ["store"], columns)
    for store in SPEED:
        plain = next(other for other in SPEED if other.plain and other.library == store.library)
        cells: list[str] = []
        for context in CONTEXTS:
            speed, usual = results.speeds(store, context), results.speeds(plain, context)
            cells += [number(speed), f"{speed / usual:.2f}x" if speed and usual and not store.plain else ""]
        if any(cells):
            table.add_row(store.name, *cells)
    return table


def as_json(results: Results) -> dict[str, Any]:
    """Every single measurement."""
    return {
        "perplexity": {" ".join(key): found for key, found in results.perplexity.items()},
        "memory": results.memory,
        "growth": {f"{name} {length}": found for (name, length), found in results.growth.items()},
        "tokens_per_second": {f"{name} {context}": speeds for (name, context), speeds in results.speed.items()},
        "remarks": results.remarks,
    }
