"""`loquent eval perplexity`: how well a model predicts the texts of files; it writes none."""

from __future__ import annotations

import math
import sys
import time
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions
from loquent.cli.progress import progress
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.evaluation import Perplexity

EPILOG = """[bold]Examples[/bold]

loquent eval perplexity book.txt

loquent eval perplexity --model openai-community/gpt2 --stride 256 wikitext.txt news.jsonl.xz

loquent eval perplexity --precision int4 --kv-bits 4 --json book.txt

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

_WINDOWS = "Windows"


def perplexity(
    model: ModelOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Texts; none: the text from a pipe."),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="How many tokens are read at once. (default: the model's positions, at most 2048)",
            show_default=False,
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="By how many a window moves on: fewer are slower, with more context. (default: half of --length)",
            show_default=False,
            rich_help_panel=_WINDOWS,
        ),
    ] = None,
    count_ends: Annotated[
        bool, typer.Option("--count-ends", help="Score the end token behind each document too.")
    ] = False,
    field: Annotated[str, typer.Option(metavar="NAME", help="What the text is called in .jsonl files.")] = "text",
) -> None:
    """Say how well a model predicts texts of any length.

    A file is a document, or several between lines of <|endoftext|>; one with .jsonl in its name has a document in each
    line. Files that end in .xz and .gz are unpacked. Each token is scored once, behind the BOS token and what stands
    before it in its document, as far as a window reaches.

    For each file a line with its perplexity per token, bits per byte, perplexity per word (what white space separates),
    and the numbers of tokens, bytes and documents; where there are several files, one for all of them. With --json an
    object each.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        if not files and sys.stdin.isatty():
            raise ArgumentError("a file is missing. Name one, as in: loquent eval perplexity book.txt")
        from loquent.evaluation import perplexity as measure
        from loquent.evaluation.reading import read_documents, split_documents

        texts = {str(path): read_documents(path, field) for path in files or ()} or {
            "-": split_documents(sys.stdin.read())
        }
        loaded = load_model(model, terminal, memory.kv_memory)
        options: dict[str, Any] = memory.for_generation({})
        begun, found = time.perf_counter(), dict[str, Any]()
        for name, documents in texts.items():
            if not documents:
                raise ArgumentError(f"{name} has no text. Leave it out.")
            with progress(terminal, name) as told:
                found[name] = measure(
                    loaded, documents, length=length, stride=stride, count_ends=count_ends, progress=told, **options
                )
        seconds = time.perf_counter() - begun
        _show(terminal, found, output.json)
        tokens = sum(each.tokens for each in found.values())
        terminal.notice(f"{tokens} tokens, {tokens / seconds:.1f} tokens/s")


_COLUMNS = ("perplexity", "bits_per_byte", "word_perplexity", "tokens", "bytes", "documents")


def _show(terminal: Terminal, found: dict[str, Perplexity], as_json: bool) -> None:
    lines: list[tuple[str | None, Perplexity]] = [*found.items()]
    if len(found) > 1:
        lines.append((None, reduce(add, found.values())))
    if as_json:
        for name, each in lines:
            terminal.line({"file": name, **_facts(each), "log_probability": each.log_probability, "words": each.words})
        return
    rows = [("file", *(column.replace("_", " ") for column in _COLUMNS))]
    rows += [(name or "all", *(_shown(value) for value in _facts(each).values())) for name, each in lines]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *others in rows:
        cells = [f"{first:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(others, widths[1:]))]
        terminal.text("  ".join(cells) + "\n")


def _facts(found: Perplexity) -> dict[str, float | None]:
    values = {column: getattr(found, column) for column in _COLUMNS}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _shown(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"
