"""`loquent eval perplexity`: how well a model predicts the texts of files; it writes none."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions, group_option
from loquent.cli.progress import progress
from loquent.cli.terminal import Terminal
from loquent.cli.training_data import FormatName
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.evaluation import Document, Perplexity
    from loquent.tokenization import PreTrainedTokenizer

EPILOG = """[bold]Examples[/bold]

loquent eval perplexity book.txt

loquent eval perplexity --model openai-community/gpt2 --stride 256 wikitext.txt news.jsonl.xz

loquent eval perplexity --precision int4 --kv-bits 4 --json book.txt

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

_TEXTS, _WINDOWS = "Texts", "Windows"


Sources = dict[str, Callable[["PreTrainedTokenizer"], "list[Document]"]]
"""The documents of each file, once there is a tokenizer; what cannot be opened has been refused."""


@dataclass(frozen=True)
class TextOptions:
    """What the files hold."""

    count_ends: Annotated[
        bool, group_option(_TEXTS, "--count-ends", help="Score the end token behind each document too.")
    ] = False
    field: Annotated[
        str, group_option(_TEXTS, metavar="NAME", help="What the text is called in .jsonl files.", show_default=True)
    ] = "text"
    dialogues: Annotated[bool, group_option(_TEXTS, "--dialogues", help="The files are conversations, in .jsonl.")] = (
        False
    )
    dialogue_format: Annotated[
        FormatName,
        group_option(_TEXTS, help="With --dialogues: by the chat template, or turns ended by EOS.", show_default=True),
    ] = FormatName.template

    def sources(self, files: list[Path]) -> Sources:
        """The documents of the files, or of a pipe where there are none.

        Raises:
            ArgumentError: there is nothing to read, or conversations are asked for what only texts have.
            DataError: a file cannot be read.
        """
        if not files and sys.stdin.isatty():
            raise ArgumentError("a file is missing. Name one, as in: loquent eval perplexity book.txt")
        if self.dialogues and (self.count_ends or not files):
            raise ArgumentError("--dialogues takes files, and not --count-ends: its formats say which ends count.")
        return _conversations(files, self.dialogue_format) if self.dialogues else self._texts(files)

    def _texts(self, files: list[Path]) -> Sources:
        from loquent.evaluation import document_of
        from loquent.training.data import read_texts

        def documents(texts: Iterable[str], tokenizer: PreTrainedTokenizer) -> list[Document]:
            return [document_of(tokenizer, text, self.count_ends) for text in texts]

        found = {str(path): read_texts([path], field=self.field) for path in files}
        return {name: partial(documents, texts) for name, texts in (found or {"-": iter([_from_pipe()])}).items()}


@dataclass(frozen=True)
class WindowOptions:
    """How long texts are cut."""

    length: Annotated[
        int | None,
        group_option(
            _WINDOWS,
            metavar="N",
            min=1,
            help="How many tokens are read at once. (default: the model's positions, at most 2048)",
        ),
    ] = None
    stride: Annotated[
        int | None,
        group_option(
            _WINDOWS,
            metavar="N",
            min=1,
            help="By how many a window moves on: fewer are slower, with more context. (default: half of --length)",
        ),
    ] = None


def perplexity(
    model: ModelOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    texts: TextOptions,
    windows: WindowOptions,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Texts, or folders of them; none: the text from a pipe, one document."),
    ] = None,
) -> None:
    """Say how well a model predicts texts of any length.

    A file is a document, or several between lines of <|endoftext|>; one with .jsonl in its name has a document in each
    line. Files that end in .xz, .gz and .bz2 are unpacked. Each token is scored once, behind the BOS token and what
    stands before it in its document, as far as a window reaches. With --dialogues a line is a conversation, of which
    the answers are scored (with --dialogue-format eos everything).

    For each file a line with its perplexity per token, bits per byte, perplexity per word (what white space separates),
    and the numbers of tokens, bytes and documents; where there are several files, one for all of them. With --json an
    object each.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        from loquent.evaluation import measured

        sources = texts.sources(files or [])
        loaded = load_model(model, terminal, memory.kv_memory)
        options: dict[str, Any] = {**vars(windows), **memory.for_generation({})}
        begun, found = time.perf_counter(), dict[str, Any]()
        for name, documents in sources.items():
            with progress(terminal, name) as told:
                found[name] = measured(loaded, documents(loaded.tokenizer), progress=told, **options)
        seconds = time.perf_counter() - begun
        _show(terminal, found, output.json)
        tokens = sum(each.tokens for each in found.values())
        terminal.notice(f"{tokens} tokens, {tokens / seconds:.1f} tokens/s")


def _from_pipe() -> str:
    return sys.stdin.read().removesuffix("\n")


def _conversations(files: list[Path], written: FormatName) -> Sources:
    from loquent.evaluation import conversation_documents
    from loquent.training.data import Dialogue, JoinedByEos, Templated, read_dialogues

    kind = JoinedByEos if written is FormatName.eos else Templated

    def documents(dialogues: Iterable[Dialogue], tokenizer: PreTrainedTokenizer) -> list[Document]:
        return conversation_documents(tokenizer, dialogues, kind.of(tokenizer))

    return {str(path): partial(documents, read_dialogues([path])) for path in files}


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
