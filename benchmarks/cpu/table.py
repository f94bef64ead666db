"""Results as tables on a terminal: ours, the peers, the limit, and what is reached; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from cpu.engines import ENGINES, OURS, TRANSFORMERS
from cpu.measures import Measure, target
from cpu.runs import Key, Results

PEERS = tuple(engine.name for engine in ENGINES if engine is not OURS)


def number(value: float | None) -> str:
    """Four digits or more; fractions only where they say something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 20 else f"{value:.3g}"


def verdict(value: float | None, wanted: float | None) -> str:
    """Whether a target is reached, and how far it is where it is not."""
    if value is None or wanted is None:
        return ""
    return "[green]yes[/]" if value >= wanted else f"[red]{value / wanted:.0%}[/]"


def right_aligned(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def speeds(results: Results, measures: Sequence[Measure]) -> Table:
    """Each measure in each precision, beside peers whose weights have the same size."""
    shape, limits = results.shape, results.limit_medians()
    precisions = sorted({key[1] for key in results.speeds}, key=["float32", "bfloat16", "int8", "int4"].index)
    columns = ["ours", *PEERS, "ours / best", "limit", "ours / limit", "target", "reached"]
    table = right_aligned(f"{shape.title}: tokens per second, medians", ["", "weights"], columns)
    for measure in measures:
        for precision in precisions:
            ours = results.speed((OURS.name, precision), measure.name)
            peers = [results.speed((peer, precision), measure.name) for peer in PEERS]
            best = max((peer for peer in peers if peer), default=None)
            limit = measure.limit(shape, precision, limits)
            factor = measure.factor(shape, precision)
            wanted = target(factor, best, limit) if best else None
            if measure.task == "decode" and measure.batch == 1 and limit:
                wanted = max(wanted or 0, shape.share * limit)
            table.add_row(
                measure.name,
                precision,
                f"[bold]{number(ours)}[/]",
                *map(number, peers),
                f"{ours / best:.2f}x" if ours and best else "",
                number(limit),
                f"{ours / limit:.2f}" if ours and limit else "",
                number(wanted),
                verdict(ours, wanted),
            )
        table.add_section()
    return table


def beside_transformers(results: Results, measures: Sequence[Measure]) -> Table | None:
    """Ours in int8 (or the smallest weights that were measured) beside transformers in its best precision."""
    ours = [key for key in results.speeds if key[0] == OURS.name]
    theirs = [key for key in results.speeds if key[0] == TRANSFORMERS.name]
    if not ours or not theirs:
        return None
    own = next((key for key in ours if key[1] == "int8"), ours[-1])
    limits = results.limit_medians()
    title = f"{results.shape.title}: ours in {own[1]} beside transformers in its best precision"
    table = right_aligned(title, [""], ["ours", "transformers", "in", "ratio", "asked for", "target", "reached"])
    for measure in measures:
        speed = results.speed(own, measure.name)
        found = [(results.speed(key, measure.name) or 0.0, key[1]) for key in theirs]
        best, precision = max(found)
        factor = measure.factor_of_transformers(results.shape)
        if not speed or not best:
            continue
        wanted = target(factor, best, measure.limit(results.shape, own[1], limits))
        asked = f"{factor:g}x" if factor else ""
        row = [number(speed), number(best), precision, f"{speed / best:.2f}x", asked, number(wanted)]
        table.add_row(measure.name, *row, verdict(speed, wanted))
    return table


def memory(results: Results) -> Table:
    """Resident memory after loading and a first short generation."""
    title = f"{results.shape.title}: resident memory after loading, MiB"
    table = right_aligned(title, ["", "weights"], ["all", "its own", "mapped files"])
    for (engine, precision), held in results.memory.items():
        table.add_row(engine, precision, number(held.own + held.mapped), number(held.own), number(held.mapped))
    return table


def starts(title: str, times: dict[Key, list[float]]) -> Table:
    """Cold processes."""
    table = right_aligned(f"{title}: start of a process to its first token", ["", "weights"], ["seconds"])
    for (engine, precision), seconds in times.items():
        table.add_row(engine, precision, f"{median(seconds):.2f}")
    return table


def limits_line(results: Results) -> str:
    """What the machine allowed while this was measured."""
    found = results.limit_medians()
    parts = []
    for name, value in found.items():
        kind, what = name.split()
        if kind == "read":
            speed = results.shape.bytes(what) / value / 1e9
            parts.append(f"{what} weights once in {1e3 * value:.3g} ms ({speed:.0f} GB/s)")
        else:
            parts.append(f"{what} {value / 1e9:,.0f} G(FL)OP/s")
    return "Limits: " + ", ".join(parts)


def show(results: Results, measures: Sequence[Measure], console: Console) -> None:
    """Everything about one shape."""
    console.print(speeds(results, measures))
    second = beside_transformers(results, measures)
    if second is not None:
        console.print(second)
    if results.memory:
        console.print(memory(results))
    if results.limits:
        console.print(limits_line(results), highlight=False)
    for remark in results.remarks:
        console.print(f"[yellow]{remark}[/]", highlight=False)
