"""`loquent generate`: continues texts, and prints them as they are written."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loquent.cli.failures import INTERRUPTED, reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions, WritingOptions
from loquent.cli.rows import JsonEvents, JsonResults, Rows, TextRows
from loquent.cli.showing import ShowOptions
from loquent.cli.statistics import Statistics
from loquent.cli.strategies import StrategyOptions
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.text import TextModel

EPILOG = """[bold]Examples[/bold]

loquent generate "Once upon a time"

loquent generate --model openai-community/gpt2 --sample --temperature 0.8 --seed 1 "The sea was"

cat story.txt | loquent generate --max-new-tokens 50 --stop "The end"

loquent generate --num-beams 4 --greedy --show beams --html beams.html -n 20 "Once upon a time"

loquent generate --kv-bits 4 --kv-memory 1GiB --model openai-community/gpt2 "The sea was"

loquent generate --prompt-cache rules.cache "$(cat rules.txt)" -n 200

loquent generate --choice yes --choice no "Is the sea blue? Answer:"

loquent generate --json --num-return-sequences 3 --sample "A name for a cat:" | jq .text

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted (what was written has been printed)."""


def generate(
    model: ModelOptions,
    writing: WritingOptions,
    strategy: StrategyOptions,
    memory: MemoryOptions,
    show: ShowOptions,
    output: OutputOptions,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Texts to continue; '-', or none, for the text from a pipe."),
    ] = None,
    echo: Annotated[
        bool,
        typer.Option("--echo/--no-echo", help="Print the prompt before its continuation.", rich_help_panel="Output"),
    ] = True,
    prompt_cache: Annotated[
        str | None,
        typer.Option(
            "--prompt-cache",
            metavar="FILE",
            help="Keep what was read of the prompt, and go on from there the next time.",
            rich_help_panel="Memory",
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="With --json: a line for each event.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Continue one or several texts.

    The text goes to stdout as it is written, statistics go to stderr. With --json each result is a line with
    "prompt", "text" (what was written), "tokens", "finish_reason", "row"; with --json --stream each event is one, with
    "row", "text", "tokens" and "finished".

    --show draws behind the texts how they came about; on a terminal the middle of what is long is left out, in a file
    everything is there. --html writes the same, and what else there is to see, as a page for a browser.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        if stream and not output.json:
            raise ArgumentError("--stream is for --json: text is always printed as it is written.")
        texts = [_from_pipe() if prompt == "-" else prompt for prompt in prompts or ["-"]]
        loaded = load_model(model, terminal, memory.kv_memory)
        chosen = strategy.for_generation(loaded, lambda name: load_model(replace(model, model=name), terminal))
        chosen |= memory.for_generation(chosen)
        options = writing.for_generation(loaded, chosen)
        if prompt_cache is not None:
            options["prompt_cache"] = prompt_cache
        show.check(loaded, options, output.json)
        rows: Rows
        if output.json:
            rows = JsonEvents(terminal) if stream else JsonResults(terminal, texts)
        else:
            rows = TextRows(terminal, texts if echo else [""] * len(texts))
        _write(loaded, texts, options, rows, terminal, show)


def _write(
    model: TextModel, texts: list[str], options: dict[str, Any], rows: Rows, terminal: Terminal, show: ShowOptions
) -> None:
    statistics = Statistics()
    interrupted = False
    copies = options.get("num_return_sequences", model.model.generation_config.num_return_sequences)
    run = model.run(texts, **options, **({"output_trace": True} if show.any else {}))
    try:
        with closing(run.events()) as events:
            rows.begin(copies)
            for event in events:
                statistics.count(event.tokens)
                rows.take(event)
    except KeyboardInterrupt:
        interrupted = True
    rows.end()
    terminal.notice(f"{statistics}, {run.reused} of the prompt kept" if run.reused else str(statistics))
    if show.any:
        show.draw(model, run.traces(), terminal)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _from_pipe() -> str:
    if sys.stdin.isatty():
        raise ArgumentError('a prompt is missing. Pass one, as in: loquent generate "Once upon a time"')
    return sys.stdin.read().removesuffix("\n")
