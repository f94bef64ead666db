"""Loquent beside transformers on models with random weights: decoding, prefill, import and start to the first token.

    python benchmarks/decode.py --peer-python /path/to/other/bin/python

Each engine lives in a process of its own, so that the peer can be another interpreter's transformers; both run the same
lines of this file. Rounds alternate between the two, and the table gives medians and their ratio (above 1: Loquent is
faster). Absolute figures move with the machine; the ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from statistics import median
from typing import Any

# Random weights in the shapes of two trained models. Untied random logits never repeat an end token: none is set.
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2 124M": ("GPT2Config", "GPT2LMHeadModel", {"eos_token_id": None, "bos_token_id": None}),
    "Doge-20M": (
        "DogeConfig",
        "DogeForCausalLM",
        {
            "vocab_size": 32768,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
            "max_position_embeddings": 2048,
            "eos_token_id": None,
        },
    ),
}
PROMPT, NEW, PREFILL = 64, 64, 512


# --- in the engine's process -----------------------------------------------------------------------------------------


def serve(library: str, shape: str, threads: int) -> None:
    """Build the model, then answer one measurement per line of stdin, in seconds."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    lib = import_module(library)
    config_name, model_name, fields = SHAPES[shape]
    model = getattr(lib, model_name)(getattr(lib, config_name)(**fields)).eval()
    print(json.dumps({"version": lib.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = measure(model, request["task"], request["batch"])
        print(json.dumps({"seconds": seconds}), flush=True)


def measure(model: Any, task: str, batch: int) -> float:
    """Seconds per decoding step at a batch size, or for a prefill of one row."""
    import torch

    if task == "prefill":
        return timed(model, torch.arange(batch * PREFILL).view(batch, PREFILL) % 1000 + 5, 1)
    prompt = torch.arange(batch * PROMPT).view(batch, PROMPT) % 1000 + 5
    return (timed(model, prompt, NEW) - timed(model, prompt, 1)) / (NEW - 1)


def timed(model: Any, prompt: Any, new: int) -> float:
    """How long `generate` takes for exactly `new` tokens."""
    import torch

    start = time.perf_counter()
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, do_sample=False, pad_token_id=0
    )
    seconds = time.perf_counter() - start
    if out.shape[1] != prompt.shape[1] + new:
        raise SystemExit(f"generated {out.shape[1] - prompt.shape[1]} tokens instead of {new}")
    return seconds


def save(library: str, folder: str) -> None:
    """Write a random GPT-2 124M to a folder."""
    lib = import_module(library)
    lib.GPT2LMHeadModel(lib.GPT2Config(eos_token_id=None, bos_token_id=None)).save_pretrained(folder)


def first_token(library: str, folder: str) -> None:
    """Load a model and generate one token."""
    import torch

    model = import_module(library).AutoModelForCausalLM.from_pretrained(folder)
    timed(model, torch.arange(8).view(1, 8) + 5, 1)


# --- in the parent ---------------------------------------------------------------------------------------------------


class Engine:
    """One side of the comparison: how to start it, and what it measured."""

    def __init__(self, library: str, python: str, threads: int) -> None:
        self.library, self.python, self.threads = library, python, threads
        self.versions: dict[str, str] = {"version": ""}
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        source = os.path.join(os.path.dirname(__file__), "..", "src")
        self.environment["PYTHONPATH"] = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])

    def command(self, *mode: str) -> list[str]:
        """How to run this file as this engine."""
        return [self.python, __file__, "--threads", str(self.threads), "--as", self.library, *mode]

    def run(self, *command: str) -> float:
        """Seconds that a process takes from its start to its end."""
        start = time.perf_counter()
        subprocess.run(command, env=self.environment, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    @contextmanager
    def serving(self, shape: str) -> Iterator[Callable[[str, int], float]]:
        """A process that holds the model and measures on request."""
        with subprocess.Popen(
            self.command("--serve", shape),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            requests, answers = process.stdin, process.stdout
            self.versions = json.loads(answers.readline() or "{}")
            if not self.versions:
                raise SystemExit(f"{self.library} did not start; try: {' '.join(self.command('--serve', repr(shape)))}")

            def ask(task: str, batch: int) -> float:
                requests.write(json.dumps({"task": task, "batch": batch}) + "\n")
                requests.flush()
                return float(json.loads(answers.readline())["seconds"])

            yield ask
            requests.close()


Row = tuple[str, str, float, float, bool]
"""What was measured, its unit, Loquent's and the peer's median, and whether more is better."""


def compare_speeds(ours: Engine, peer: Engine, shape: str, rounds: int) -> list[Row]:
    """Decoding and prefill of one model in alternating rounds."""
    tasks = [("decode", 1), ("decode", 16), ("prefill", 1)]
    times: dict[tuple[str, int, Engine], list[float]] = {}
    with ours.serving(shape) as ask_ours, peer.serving(shape) as ask_peer:
        for round_number in range(rounds + 1):
            for task, batch in tasks:
                for engine, ask in ((ours, ask_ours), (peer, ask_peer)):
                    seconds = ask(task, batch)
                    if round_number:  # the first round warms up
                        times.setdefault((task, batch, engine), []).append(seconds)
                    time.sleep(0.2)  # idle threads of this engine stop spinning before the other one runs
    rows = []
    for task, batch in tasks:
        tokens = PREFILL if task == "prefill" else batch
        speeds = [tokens / median(times[task, batch, engine]) for engine in (ours, peer)]
        name = f"prefill of {PREFILL}" if task == "prefill" else f"decode, batch {batch}"
        rows.append((f"{shape}: {name}", "tokens/s", speeds[0], speeds[1], True))
    return rows


def compare_starts(ours: Engine, peer: Engine, rounds: int) -> list[Row]:
    """Importing the library, and from the start of a process to the first token of a GPT-2 124M on disk."""
    times: dict[tuple[str, Engine], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        peer.run(*peer.command("--save", folder))
        print_version = "import transformers; print(transformers.__version__)"
        version = subprocess.run([peer.python, "-c", print_version], capture_output=True, text=True, check=True)
        peer.versions = {"version": version.stdout.strip()}
        for _ in range(rounds):
            for engine in (ours, peer):
                bare = engine.run(engine.python, "-c", "pass")
                times.setdefault(("import", engine), []).append(
                    engine.run(engine.python, "-c", f"import {engine.library}") - bare
                )
                times.setdefault(("start", engine), []).append(engine.run(*engine.command("--first-token", folder)))
    names = {"import": "import", "start": "start to first token, GPT-2 124M"}
    return [(names[k], "s", median(times[k, ours]), median(times[k, peer]), False) for k in names]


def show(rows: list[Row], ours: Engine, peer: Engine) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{ours.threads} threads, float32, medians"
    table = Table("", "unit", "Loquent", f"transformers {peer.versions['version']}", "ratio", title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    for name, unit, own, other, more_is_better in rows:
        ratio = own / other if more_is_better else other / own
        digits = 0 if more_is_better else 2
        table.add_row(name, unit, f"{own:,.{digits}f}", f"{other:,.{digits}f}", f"{ratio:.2f}")
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has the peer transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=[*SHAPES, "start"], help="one part of the comparison")
    parser.add_argument("--as", dest="library", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    parser.add_argument("--first-token", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.library, args.serve, args.threads)
    if args.save:
        return save(args.library, args.save)
    if args.first_token:
        return first_token(args.library, args.first_token)
    ours = Engine("loquent", sys.executable, args.threads)
    peer = Engine("transformers", args.peer_python, args.threads)
    rows: list[Row] = []
    for shape in SHAPES:
        if args.only in (None, shape):
            rows += compare_speeds(ours, peer, shape, args.rounds)
    if args.only in (None, "start"):
        rows += compare_starts(ours, peer, args.rounds)
    show(rows, ours, peer)
    return None


if __name__ == "__main__":
    main()
