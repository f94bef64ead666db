"""Loquent on the CPU beside transformers, CTranslate2 and llama.cpp, and beside what the machine allows.

    benchmarks/install_peers.sh          # once: the peers, in environments of their own
    python benchmarks/cpu.py             # everything; about an hour
    python benchmarks/cpu.py --shapes gpt2 --precisions int8 --rounds 1

Every engine lives in a process of its own, holds the same random weights and gets the same ids; within each round the
engines take turns, and the tables give medians over the rounds. Absolute figures move with the machine and with who
else uses it: the ratios and the limit (every weight read once a step, or multiplied at the peak) are of the same run.
Decoding starts behind prompts of 64 tokens and is timed from the first new token on. Needs loquent[torch], for writing
the checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cpu.engines import ENGINES, Places, engine_named
from cpu.measures import measures
from cpu.runs import Contest, Results, cold_starts, profiles
from cpu.shapes import PRECISIONS, SHAPES, shape_named
from cpu.table import show, starts

CACHE = Path("~/.cache").expanduser()
BUSY = 0.5  # the load from which on a run says more of its neighbours than of the engines
TASKS = ("decode", "prefill", "beam", "start")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--shapes", nargs="+", choices=names, default=names)
    names = [engine.name for engine in ENGINES]
    parser.add_argument("--engines", nargs="+", choices=names, default=names)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="of the weights; all that fit the shape")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, help="tokens that decoding is timed over; 64, and 16 for a large shape")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stages", action="store_true", help="only where the time of our steps goes")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write every single measurement here")
    parser.add_argument("--peers", type=Path, default=CACHE / "loquent-peers", help="where install_peers.sh put them")
    parser.add_argument("--work", type=Path, default=CACHE / "loquent-benchmarks", help="checkpoints of all formats")
    return parser.parse_args()


def as_json(results: Results) -> dict[str, object]:
    """All measurements of a shape."""
    return {
        "shape": results.shape.name,
        "versions": results.versions,
        "tokens_per_second": {" ".join(key): speeds for key, speeds in results.speeds.items()},
        "limits": results.limits,
        "resident_mib": {" ".join(key): held._asdict() for key, held in results.memory.items()},
        "remarks": results.remarks,
    }


def main() -> None:
    args = arguments()
    console = Console(width=None if sys.stdout.isatty() else 150)
    places = Places(args.peers.absolute(), args.work.absolute())
    engines = [engine_named(name) for name in args.engines]
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"  the load is {load:.1f}: others use this machine, and engines on OpenMP suffer most", file=sys.stderr)
    found: list[dict[str, object]] = []
    for shape in map(shape_named, args.shapes):
        precisions = args.precisions or shape.precisions
        if args.new:
            shape = replace(shape, new=args.new)
        if args.stages:
            for text in profiles(places, shape, precisions, args.batches, args.threads):
                console.print(text, highlight=False, markup=False)
            continue
        wanted = measures(shape, args.tasks, args.batches)
        if wanted:
            results = Contest(places, shape, engines, precisions).run(wanted, args.rounds, args.threads)
            console.print(f"\n{', '.join(results.versions.values())}; {args.threads} threads of {os.cpu_count()}")
            show(results, wanted, console)
            found.append(as_json(results))
        if "start" in args.tasks and shape.starts:
            times = cold_starts(places, shape, engines, precisions, args.rounds, args.threads)
            console.print(starts(shape.title, times))
            found.append({"shape": shape.name, "start_seconds": {" ".join(key): s for key, s in times.items()}})
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
