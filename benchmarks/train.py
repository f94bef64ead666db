"""Training with Loquent beside a plain PyTorch loop with the model of transformers, in tokens per second.

    python benchmarks/train.py                    # about a quarter of an hour on two cores
    python benchmarks/train.py --only gpt2 --precisions bfloat16 --rounds 3
    python benchmarks/train.py --device cuda --rounds 10

Both train the same shapes from the same random weights on the same tokens with the same optimizer (fused AdamW), the
same clipping and the same mixed precision, in one process. They take turns, a step each; the table has the medians of
the steps and the median of the ratios of neighbouring steps (above 1: Loquent is faster). "texts" are rows full of
text, which the plain loop reads as they are. "conversations" are 20 to 400 tokens long: the plain loop pads each batch
of them, as examples do everywhere; Loquent packs them, none seeing another. Only real tokens count. "compiled" is
Loquent with `torch_compile`, beside the same plain loop. The plain loop's attention is PyTorch's (`sdpa`) where the
model has it. Needs loquent[torch] and transformers 4.55.4.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

import loquent
from loquent.training import Examples, TrainingArguments
from loquent.training.data import Packs
from loquent.training.loop import Run


@dataclass(frozen=True)
class Shape:
    """A model, and how many tokens a step reads: rows of `length`."""

    name: str
    config: str
    fields: dict[str, Any]
    rows: int
    length: int


DOGE = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "keep_window_size": 2048,
    "tie_word_embeddings": True,
}
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "tie_word_embeddings": True,
}
QUIET = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SHAPES = [
    Shape("Doge 8M", "DogeConfig", DOGE, 8, 512),
    Shape("Llama 15M", "LlamaConfig", LLAMA, 8, 256),
    Shape("GPT-2 124M", "GPT2Config", QUIET, 4, 256),
]


def documents(shape: Shape, kind: str, count: int, seed: int) -> Examples:
    """Random tokens: rows full of text, or conversations of different lengths."""
    random = np.random.default_rng(seed)
    vocabulary = shape.fields.get("vocab_size", 50257)
    most = min(400, shape.length)
    lengths = [shape.length if kind == "texts" else int(random.integers(20, most)) for _ in range(count)]
    return Examples.of_ids([random.integers(0, vocabulary, length) for length in lengths], vocabulary)


def ours(shape: Shape, examples: Examples, precision: str, args: argparse.Namespace, *, fast: bool) -> Iterator[float]:
    """Tokens per second of a step after another."""
    config = getattr(loquent, shape.config)(**shape.fields)
    model = loquent.AutoModelForCausalLM.from_config(config).to(args.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=1 << 30,
            max_length=shape.length,
            per_device_train_batch_size=shape.rows,
            lr_scheduler_type="constant",
            bf16=precision == "bfloat16",
            torch_compile=fast,
            logging_steps=1,
            save_steps=0,
        )
        run = Run(model, Packs(examples, shape.length), arguments)
        run.prepare()
        for step in range(1 << 30):
            before, started = run.progress.tokens, now(args.device)
            run.step(step)
            yield (run.progress.tokens - before) / (now(args.device) - started)


def plain(shape: Shape, examples: Examples, precision: str, args: argparse.Namespace) -> Iterator[float]:
    """The same of the loop that everybody writes."""
    config = getattr(transformers, shape.config)(**shape.fields, use_cache=False)
    model = transformers.AutoModelForCausalLM.from_config(config).to(args.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    order = np.random.default_rng(0).permutation(len(examples))
    # As many documents as fill the rows that ours reads, on average.
    rows = max(1, round(shape.rows * shape.length / (len(examples.tokens) / len(examples))))
    for start in range(0, 1 << 30, rows):
        started = now(args.device)
        chosen = [
            examples.document(order[index % len(order)])[0].astype(np.int64) for index in range(start, start + rows)
        ]
        longest = max(map(len, chosen))
        ids = torch.zeros(rows, longest, dtype=torch.long)
        mask = torch.zeros(rows, longest, dtype=torch.long)
        for row, tokens in enumerate(chosen):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.from_numpy(tokens), 1
        labels = ids.masked_fill(mask == 0, -100)
        inputs = {"input_ids": ids, "labels": labels}
        if not bool(mask.all()):
            inputs["attention_mask"] = mask
        inputs = {name: tensor.to(args.device) for name, tensor in inputs.items()}
        with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        yield int(mask.sum()) / (now(args.device) - started)


def now(device: str) -> float:
    """Seconds, when the device has done all that it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(shape: Shape, kind: str, precision: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """The speeds of all contestants, which take turns."""
    examples = documents(shape, kind, 600, seed=1)
    contestants: dict[str, Callable[[], Iterator[float]]] = {
        "ours": lambda: ours(shape, examples, precision, args, fast=False),
        "plain": lambda: plain(shape, examples, precision, args),
        "compiled": lambda: ours(shape, examples, precision, args, fast=True),
    }
    if args.no_compiled:
        del contestants["compiled"]
    speeds: dict[str, list[float]] = defaultdict(list)
    running = {name: make() for name, make in contestants.items()}
    for turn in range(args.rounds + 2):  # the first two warm up, and compile
        for name, steps in running.items():
            speed = next(steps)
            if turn > 1:
                speeds[name].append(speed)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="shapes or kinds whose names have one of these words")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7, help="steps of each that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--no-compiled", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    console = Console()
    table = Table(
        "model", "data", "precision", "plain loop", "ours", "ratio", "compiled", "ratio", caption_justify="left"
    )
    table.caption = f"tokens per second; torch {torch.__version__}, transformers {transformers.__version__}"
    for shape in SHAPES:
        for kind in ("texts", "conversations"):
            words = args.only or [""]
            if not any(word.lower() in f"{shape.name} {kind}".lower() for word in words):
                continue
            for precision in args.precisions:
                speeds = compare(shape, kind, precision, args)
                cells = [f"{median(speeds['plain']):,.0f}"]
                for name in ("ours", "compiled"):
                    ratios = [one / other for one, other in zip(speeds[name], speeds["plain"])]
                    cells += [f"{median(speeds[name]):,.0f}", f"{median(ratios):.2f}"] if ratios else ["", ""]
                table.add_row(shape.name, kind, precision, *cells)
                console.print(table)


if __name__ == "__main__":
    main()
