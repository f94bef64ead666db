"""`loquent score`: how likely a model finds a text; it writes none."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

EPILOG = """[bold]Examples[/bold]

loquent score "Once upon a time there was a cat."

loquent score --given "The capital of France is" " Paris" " Rome"

cat story.txt | loquent score --json --model gpt2-int8

cat story.txt | loquent score --kv-bits 2 --kv-residual 32

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""


def score(
    model: ModelOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts to score; none: the text from a pipe.")
    ] = None,
    given: Annotated[str, typer.Option("--given", metavar="TEXT", help="What stands before each text.")] = "",
) -> None:
    """Say how likely a model finds texts.

    For each text a line with its perplexity, the log-probability (natural logarithm), the number of tokens, and bits
    per byte, with tabs between. With --json an object with these, and with "token_log_probabilities". The options for
    memory say how keys and values are kept meanwhile, and so what a quantized cache costs.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        if not texts and sys.stdin.isatty():
            raise ArgumentError('a text is missing. Pass one, as in: loquent score "Once upon a time"')
        wanted = texts or [sys.stdin.read().removesuffix("\n")]
        loaded = load_model(model, terminal, memory.kv_memory)
        store = memory.for_generation({})
        for text in wanted:
            found = loaded.score(text, given=given, **store)
            facts = {
                "perplexity": found.perplexity,
                "log_probability": found.total,
                "tokens": len(found.ids),
                "bits_per_byte": found.bits_per_byte,
            }
            if output.json:
                pairs = [list(pair) for pair in zip(found.tokens, found.log_probabilities)]
                terminal.line({"text": text, **facts, "token_log_probabilities": pairs})
            else:
                terminal.text("\t".join(f"{value:.6g}" for value in facts.values()) + "\n")
