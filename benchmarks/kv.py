"""What each KV store costs and saves: perplexity and bytes, memory as the system counts it, and speed.

    python benchmarks/kv.py                                # everything; about an hour
    python benchmarks/kv.py --tasks perplexity memory
    python benchmarks/kv.py --peer-python /path/to/python  # which has transformers 4.55.4, optimum-quanto and hqq

perplexity: of stories260k and of the default model on held-out stories, by the bits of keys and values, with the last
    32 tokens exact. Bytes are what the store's pages take: for each further token, and in all at the end of the
    context, a token. The peer reads token by token, since it quantizes no prompt before it has read it.
memory: of 8 rows of 4,096 tokens each, how much more a fresh process has resident for them than after a first row.
growth: one text of 4, 16 and 64 thousand tokens, in memory and in a file, and what a budget of 256 MiB says to it.
speed: tokens per second behind prompts of 512 and 4,096 tokens; the stores take turns, medians over the rounds.

Memory, growth and speed are those of random models of 4 layers of width 512 with 4 key-value heads of 64. Needs
loquent[torch], and the stories beside the checkout (--data). What a library cannot do is said below the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

from rich.console import Console

from cpu.engines import BENCHMARKS, Places
from cpu.processes import Child, ChildFailedError
from kv.models import MODELS
from kv.stores import GROWTH, MEMORY, OURS, PEER, PERPLEXITY, SPEED, Store, expected_bytes
from kv.tables import (
    BUDGET,
    CONTEXT,
    CONTEXTS,
    FAR,
    GROWING,
    NEAR,
    NEW,
    ROWS,
    Reader,
    Results,
    as_json,
    growth_table,
    memory_table,
    perplexity_table,
    speed_table,
)
from kv.texts import beginnings

CACHE = Path("~/.cache").expanduser()
DATA = BENCHMARKS.parents[1] / "shared" / "data"
BUSY = 0.5  # the load from which on a run says more of its neighbours than of the stores
PAUSE = 0.25  # seconds in which idle threads of one library stop spinning before the other one runs
TASKS = ("perplexity", "memory", "growth", "speed")

SPARE = 8
"""Positions of a context that are left free: a text cut in two may have more tokens than before."""


class RefusedError(Exception):
    """A library cannot do what it was asked; carries what it said."""


class Bench:
    """Starts the processes and asks them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.places, self.args, self.results = Places(args.work, args.work), args, Results()
        self.versions: dict[str, str] = {}
        self.salt = 0

    def readers(self) -> list[Reader]:
        """The trained models."""
        default = BENCHMARKS.parent / "src" / "loquent" / "models" / "default"
        return [
            Reader("stories260k", self.args.data / "models" / "stories260k", 512, None, self.args.texts, True),
            Reader("default", default, 2048, 256, max(1, self.args.texts // 4), False),
        ]

    def folder(self, model: str) -> Path:
        """A random model's checkpoint, written once."""
        target = self.places.work / "kv" / model
        return self.places.made(target, lambda draft: self.places.run("", "kv.models", model, draft))

    def tales(self) -> list[str]:
        """The held-out stories, gathered once."""
        stories = self.args.data / "text" / "stories.txt.xz"
        target = self.places.work / "kv" / "held-out.json"
        self.places.made(target, lambda draft: self.places.run("", "kv.texts", stories, draft))
        tales: list[str] = json.loads(target.read_text())
        return tales

    def start(self, store: Store, folder: Path, kv_memory: str = "-") -> Child:
        python = self.args.peer_python if store.library == PEER else sys.executable
        threads = str(self.args.threads)
        command = [python, "-m", "kv.serve", store.library, str(folder), store.key_values, kv_memory, threads]
        child = Child(command, self.places.environment(self.args.threads))
        self.versions[store.library] = child.ready()
        return child

    def with_child(self, store: Store, folder: Path, work: Callable[[Child], None], kv_memory: str = "-") -> None:
        """Have a process of its own do something; what it cannot do is a remark."""
        try:
            child = self.start(store, folder, kv_memory)
        except (ChildFailedError, OSError) as error:
            self.results.remarks.append(f"{store.name} did not start: {error}")
            return
        try:
            work(child)
        except (RefusedError, ChildFailedError) as error:
            self.results.remarks.append(f"{store.name}: {error}")
        finally:
            child.close()

    def ask(self, child: Child, task: str, store: Store, **arguments: Any) -> Any:
        """Raises RefusedError where the answer is that it cannot be had."""
        options = dict(store.options)
        if store.is_offloaded and store.library == OURS:
            options["offload_folder"] = str(self.args.offload_folder)
        answer = child.ask(task=task, arguments={**arguments, "options": options})
        if "failed" in answer:
            raise RefusedError(f"{answer['failed']:.300}")
        return answer["found"]

    def rows(self, count: int, length: int) -> list[list[int]]:
        """Random ids that no measurement has had before."""
        self.salt += 1
        draw = random.Random(self.salt)
        return [[draw.randrange(5, 500) for _ in range(length)] for _ in range(count)]

    def wanted(self, stores: Sequence[Store]) -> list[Store]:
        words = self.args.only
        return [store for store in stores if not words or any(word in store.name for word in words)]

    # --- tasks -------------------------------------------------------------------------------------------------------

    def perplexity(self) -> None:
        from loquent import AutoTokenizer

        tales = self.tales()
        for reader in self.readers():
            tokenizer = AutoTokenizer.from_pretrained(reader.folder)
            texts = beginnings(tales, tokenizer, reader.positions - SPARE, reader.texts)
            for store in self.wanted(PERPLEXITY):
                if store.library == OURS or reader.peers:
                    say(f"perplexity of {reader.name}: {store.name}")
                    self.with_child(store, reader.folder, partial(self.one_perplexity, store, reader, texts))

    def one_perplexity(self, store: Store, reader: Reader, texts: list[str], child: Child) -> None:
        total, tokens = self.ask(child, "perplexity", store, texts=texts)
        self.results.perplexity[reader.name, store.name] = {
            "perplexity": exp(-total / tokens),
            "tokens": tokens,
            **self.bytes_per_token(child, store, reader),
        }

    def bytes_per_token(self, child: Child, store: Store, reader: Reader) -> dict[str, float]:
        """What the store's pages take for a further token, and at the end of the context for each that is seen."""
        lengths = (NEAR, FAR, reader.positions - SPARE)
        found = [self.ask(child, "held", store, rows=self.rows(1, length)) for length in lengths]
        near, far, whole = (sum(held["parts"].values()) for held in found)
        return {"further": (far - near) / (FAR - NEAR), "whole": whole / (reader.window or lengths[-1])}

    def memory(self) -> None:
        for store in self.wanted(MEMORY):
            say(f"memory: {store.name}")
            self.with_child(store, self.folder(store.model), partial(self.one_memory, store))

    def one_memory(self, store: Store, child: Child) -> None:
        found = self.ask(child, "held", store, rows=self.rows(ROWS, CONTEXT))
        shape = MODELS[store.model][2]
        found["expected"] = sum(expected_bytes(store, shape, length) for length in found["read"])
        self.results.memory[store.name] = found

    def growth(self) -> None:
        for store in self.wanted(GROWTH):
            grow, folder = partial(self.one_growth, store), self.folder(store.model)
            if store.is_offloaded:
                self.with_child(store, folder, partial(grow, GROWING), BUDGET)
            else:  # what it would take, and what the budget says to it
                self.with_child(store, folder, partial(grow, GROWING))
                self.with_child(store, folder, partial(grow, GROWING[-1:]), BUDGET)

    def one_growth(self, store: Store, lengths: Sequence[int], child: Child) -> None:
        for length in lengths:
            say(f"growth: {store.name}, {length:,} tokens")
            start = time.perf_counter()
            found = self.ask(child, "held", store, rows=self.rows(1, length), warm=GROWING[0])
            self.results.growth[store.name, length] = {**found, "seconds": time.perf_counter() - start}

    def speed(self) -> None:
        stores = self.wanted(SPEED)
        with ExitStack() as stack:
            children: dict[str, Child] = {}
            for store in stores:
                try:
                    children[store.name] = self.start(store, self.folder(store.model))
                except (ChildFailedError, OSError) as error:
                    self.results.remarks.append(f"{store.name} did not start: {error}")
                    continue
                stack.callback(children[store.name].close)
            for context in CONTEXTS:
                for turn in range(self.args.rounds + 1):
                    say(f"speed behind {context:,} tokens: " + (f"round {turn}" if turn else "warming up"))
                    self.one_turn(stores, children, context, warm=turn > 0)

    def one_turn(self, stores: Sequence[Store], children: dict[str, Child], context: int, warm: bool) -> None:
        """Each store once, with the same prompt; those that cannot are left out from then on."""
        rows = self.rows(1, context)
        for store in [store for store in stores if store.name in children]:
            try:
                speed = self.ask(children[store.name], "decode", store, rows=rows, new=NEW if warm else 4)
            except (RefusedError, ChildFailedError) as error:
                self.results.remarks.append(f"{store.name}: {error}")
                del children[store.name]
                continue
            if warm:
                self.results.speed[store.name, context].append(speed)
            time.sleep(PAUSE)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="the stores whose names have one of these words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=32, help="stories that stories260k reads; the default model: 1/4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write every single measurement here")
    parser.add_argument("--data", type=Path, default=DATA, help="where stories260k and the stories are")
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter with transformers 4.55.4")
    parser.add_argument("--work", type=Path, default=CACHE / "loquent-benchmarks", help="where checkpoints are kept")
    parser.add_argument("--offload-folder", type=Path, metavar="FOLDER", help="of files of pages; that of --work")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work = args.work.absolute()
    args.offload_folder = args.offload_folder or args.work
    args.work.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if (load := os.getloadavg()[0]) > BUSY:
        say(f"the load is {load:.1f}: others use this machine, and speeds say little")
    bench = Bench(args)
    tables = {
        "perplexity": lambda: perplexity_table(bench.results, bench.readers()),
        "memory": lambda: memory_table(bench.results),
        "growth": lambda: growth_table(bench.results),
        "speed": lambda: speed_table(bench.results),
    }
    for task in args.tasks:
        getattr(bench, task)()
        console.print(tables[task]())
        if args.json:
            args.json.write_text(json.dumps(as_json(bench.results), indent=1))
    console.print(f"{', '.join(bench.versions.values())}; {args.threads} threads of {os.cpu_count()}")
    for remark in bench.results.remarks:
        console.print(remark, style="yellow", highlight=False, markup=False)


if __name__ == "__main__":
    main()
