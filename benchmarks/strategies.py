"""Every decoding strategy of Loquent beside transformers on a random GPT-2 124M, and what speculation gains.

    python benchmarks/strategies.py                      # everything; about half an hour
    python benchmarks/strategies.py --rounds 1 --only beams contrastive
    python benchmarks/strategies.py --peer-python /path/to/python    # which has transformers 4.55.4

Both libraries get the same weights at the same bits, the same ids and the same arguments of `generate()`, each in a
process of its own; within each round they take turns, and the tables give medians over the rounds and their ratio
(above 1: Loquent is faster). Ours in int8 is beside them for information. The peer is transformers 4.55.4, the last
version that has all of these strategies in its tree; on later ones those that are gone are left out, with a remark.
Prompts have 64 tokens, and what follows is timed from the first new token on.

Speculation is measured on models that are easy to draft for: a GPT-2 124M whose later layers are damped by 0.01, so
that its first ones draft for it (`assistant_early_exit`, and the same layers as an `assistant_model`), and one that
copies its prompt, for prompt lookup. Its speed-up is over the same library's decoding without drafts; "stood" is the
share of drafted tokens that did, empty where drafting did not pay and none was tried. What the default model's draft
gains is in `benchmarks/draft.py`. Needs loquent[torch].
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from cpu.engines import Places
from cpu.processes import Child
from cpu.protocol import prompts
from cpu.table import number, right_aligned, verdict
from strategies.cases import CYCLE, NEVER, NEW, PROMPT, SPECULATION, STRATEGIES, Case
from strategies.checkpoints import MODELS

CACHE = Path("~/.cache").expanduser()
BUSY = 0.5  # the load from which on a run says more of its neighbours than of the libraries
PAUSE = 0.25  # seconds in which idle threads of one library stop spinning before the other one runs
OURS, PEER = "loquent", "transformers"

Key = tuple[str, str]  # a library and a precision


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="the strategies whose names have one of these words")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--no-int8", action="store_true", help="leave out ours in int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write every single measurement here")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter with transformers 4.55.4")
    parser.add_argument("--work", type=Path, default=CACHE / "loquent-benchmarks", help="where checkpoints are kept")
    return parser.parse_args()


def texts(case: Case, salt: int) -> list[list[int]]:
    """Prompts that no measurement has had before; those of the copying model are laps of one of its cycles."""
    if case.model != "copying":
        return prompts(case.batch, PROMPT, salt)
    firsts = random.Random(salt).sample(range(NEVER // CYCLE), case.batch)
    return [[first * CYCLE + place % CYCLE for place in range(PROMPT)] for first in firsts]


@dataclass
class Results:
    """What was measured of each case."""

    speeds: dict[Case, dict[Key, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    drafts: dict[Case, list[float] | None] = field(
        default_factory=dict
    )  # the share that stood, and the tokens of a pass
    versions: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def speed(self, case: Case, key: Key) -> float | None:
        """The median over the rounds, in tokens per second."""
        values = self.speeds[case][key]
        return median(values) if values else None


class Contest:
    """Both libraries, a process for each that holds a model."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.places, self.threads, self.peer_python = Places(args.work, args.work), args.threads, args.peer_python
        self.results = Results()
        self.keys = [(library, precision) for precision in args.precisions for library in (OURS, PEER)]
        self.keys += [] if args.no_int8 else [(OURS, "int8")]
        self.failed: set[tuple[Case, Key]] = set()
        self.salt = 0

    def folder(self, model: str) -> Path:
        """The checkpoint, written once."""
        target = self.places.work / "strategies" / model
        return self.places.made(target, lambda draft: self.places.run("", "strategies.checkpoints", model, draft))

    def run(self, cases: Iterable[Case], rounds: int) -> None:
        """Rounds of all cases, model by model."""
        cases = list(cases)
        for model in [model for model in MODELS if any(case.model == model for case in cases)]:
            own = [case for case in cases if case.model == model]
            with ExitStack() as stack:
                children = {key: self.start(key, model, stack) for key in self.keys}
                for turn in range(rounds + 1):
                    print(f"  the {model} model: " + (f"round {turn}" if turn else "warming up"), file=sys.stderr)
                    for case in own:
                        self.one_turn(case, children, warm=turn > 0)
                for case in own:
                    if case.draft or "prompt_lookup_num_tokens" in case.options or "early exit" in case.name:
                        child = children[OURS, self.keys[0][1]]
                        asked = self.request(case, texts(case, self.fresh()), NEW, "acceptance")
                        self.results.drafts[case] = child.ask(**asked)["found"]

    def start(self, key: Key, model: str, stack: ExitStack) -> Child:
        library, precision = key
        python = self.peer_python if library == PEER else sys.executable
        serving = ["-m", "strategies.serve", library, str(self.folder(model)), precision, str(self.threads)]
        child = Child([python, *serving], self.places.environment(self.threads))
        stack.callback(child.close)
        self.results.versions[library] = child.ready()
        return child

    def request(self, case: Case, rows: Any, new: int, task: str = "speed") -> dict[str, Any]:
        draft = None if case.draft is None else str(self.folder(case.draft))
        return {"task": task, "rows": rows, "new": new, "options": dict(case.options), "draft": draft}

    def one_turn(self, case: Case, children: dict[Key, Child], warm: bool) -> None:
        """Each library once, with the same prompts."""
        rows = [texts(case, self.fresh()) for _ in range(2)]
        for key, child in children.items():
            if (case, key) in self.failed or (key[0] == PEER and not case.peer):
                continue
            answer = child.ask(**self.request(case, rows, NEW if warm else 4))
            if "failed" in answer:
                self.failed.add((case, key))
                self.results.remarks.append(f"{' in '.join(key)} fails at {case.name}: {answer['failed']:.200}")
            elif warm:
                self.results.speeds[case][key].append(answer["found"])
            time.sleep(PAUSE)

    def fresh(self) -> int:
        """A number that no measurement has had."""
        self.salt += 1
        return self.salt


def beside(results: Results, cases: Sequence[Case], precision: str) -> Table:
    """Each strategy beside the peer's, at the same bits."""
    title = f"Strategies, GPT-2 124M, {precision}: tokens per second, batch 1, medians"
    table = right_aligned(title, [""], ["ours", PEER, "ratio", "asked for", "reached", "ours, int8"])
    for case in cases:
        ours, peer = (results.speed(case, (library, precision)) for library in (OURS, PEER))
        ratio = ours / peer if ours and peer else None
        table.add_row(
            case.name,
            f"[bold]{number(ours)}[/]",
            number(peer),
            f"{ratio:.2f}x" if ratio else "",
            f"{case.target:g}x" if case.target else "",
            verdict(ratio, case.target),
            number(results.speed(case, (OURS, "int8"))),
        )
    return table


def speculation(results: Results, cases: Sequence[Case], precision: str) -> Table:
    """What drafts gain over decoding without them, in each library."""
    title = f"Speculation, GPT-2 124M, {precision}: tokens per second of all rows, medians"
    columns = ["batch", "ours", "speed-up", "stood", "tokens / pass", PEER, "its speed-up", "ours, int8", "speed-up"]
    table = right_aligned(title, ["model", ""], columns)
    for case in cases:
        plain = next((other for other in cases if (other.plain, *where(other)) == (True, *where(case))), case)
        stood = results.drafts.get(case)
        table.add_row(
            case.model,
            case.name,
            str(case.batch),
            f"[bold]{number(results.speed(case, (OURS, precision)))}[/]",
            gained(results, case, plain, (OURS, precision)),
            f"{stood[0]:.0%}" if stood else "",
            f"{stood[1]:.1f}" if stood else "",
            number(results.speed(case, (PEER, precision))),
            gained(results, case, plain, (PEER, precision)),
            number(results.speed(case, (OURS, "int8"))),
            gained(results, case, plain, (OURS, "int8")),
        )
    return table


def where(case: Case) -> tuple[str, int]:
    return case.model, case.batch


def gained(results: Results, case: Case, plain: Case, key: Key) -> str:
    """A case's speed in those of decoding without drafts."""
    speed, usual = results.speed(case, key), results.speed(plain, key)
    return f"{speed / usual:.2f}x" if speed and usual and not case.plain else ""


def as_json(results: Results) -> list[dict[str, Any]]:
    """All measurements."""
    return [
        {
            "strategy": case.name,
            "model": case.model,
            "batch": case.batch,
            "tokens_per_second": {" ".join(key): values for key, values in speeds.items() if values},
            **({"drafts": results.drafts[case]} if case in results.drafts else {}),
        }
        for case, speeds in results.speeds.items()
    ]


def main() -> None:
    args = arguments()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"  the load is {load:.1f}: others use this machine, and engines on OpenMP suffer most", file=sys.stderr)

    def wanted(cases: Sequence[Case]) -> list[Case]:
        return [case for case in cases if not args.only or any(word in case.name for word in args.only)]

    contest = Contest(args)
    contest.run([*wanted(STRATEGIES), *wanted(SPECULATION)], args.rounds)
    results = contest.results
    console.print(f"\n{', '.join(results.versions.values())}; {args.threads} threads of {os.cpu_count()}")
    for precision in args.precisions:
        if wanted(STRATEGIES):
            console.print(beside(results, wanted(STRATEGIES), precision))
        if wanted(SPECULATION):
            console.print(speculation(results, wanted(SPECULATION), precision))
    for remark in results.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False)
    if args.json:
        args.json.write_text(json.dumps(as_json(results), indent=1))


if __name__ == "__main__":
    main()
