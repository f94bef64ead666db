"""`loquent eval tasks`: the tasks of lm-eval on a model; the tasks and their figures are lm-eval's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from loquent.cli.destinations import check_file, write_file
from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.options import ModelOptions, OutputOptions
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

EPILOG = """[bold]Examples[/bold]

loquent eval tasks --tasks lambada_openai,hellaswag --limit 100

loquent eval tasks --tasks gsm8k --chat --model SmallDoge/Doge-20M-Instruct --out gsm8k.json

loquent eval tasks --tasks my_task --include-path ./tasks --kv-bits 4

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""


def tasks(
    model: ModelOptions,
    output: OutputOptions,
    names: Annotated[
        str, typer.Option("--tasks", metavar="A,B", help="Names of tasks or groups, with commas between.")
    ],
    include_path: Annotated[
        Path | None,
        typer.Option(
            "--include-path", metavar="FOLDER", help="Further tasks. They can bring code of their own, which is run."
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option("--num-fewshot", min=0, metavar="N", help="Solved questions before each. (default: the task's)"),
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="Questions of each task; below 1: which part of them.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Write questions as conversations, by the chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model is told before.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting in place of the task's, such as temperature=0.8."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many tokens are read at once. (default: all positions)")
    ] = None,
    kv_bits: Annotated[
        int | None, typer.Option("--kv-bits", min=1, max=8, metavar="N", help="Keep keys and values in so many bits.")
    ] = None,
    kv_memory: Annotated[
        str | None, typer.Option("--kv-memory", metavar="SIZE", help="The most memory that they may take.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of examples, and of what is drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all that lm-eval tells, as JSON.")
    ] = None,
) -> None:
    """Run tasks of EleutherAI's lm-eval on a model.

    Needs pip install "loquent[eval]". The first run of a task fetches its data from the hub. The tables go to stdout as
    lm-eval shows them; with --json an object for each task. `python -m loquent.evaluation.harness` is lm-eval's own
    command, which knows the model `loquent`.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        from loquent.evaluation.harness import evaluate_tasks, harness_model, results_table

        harness_model()  # before anything is loaded
        chosen = dict(_setting(each) for each in settings or ())
        if out is not None:
            check_file("--out", out, "results.json")
        loaded = load_model(model, terminal, kv_memory)
        found = evaluate_tasks(
            loaded,
            [name for name in names.split(",") if name],
            include_path=include_path,
            num_fewshot=shots,
            limit=int(limit) if limit is not None and limit >= 1 else limit,
            apply_chat_template=chat,
            system_instruction=system,
            gen_kwargs=chosen or None,
            seed=seed,
            max_length=max_length,
            kv_bits=kv_bits,
        )
        if output.json:
            for task, metrics in found["results"].items():
                terminal.line({"task": task, **json.loads(json.dumps(metrics, default=str))})
        else:
            terminal.text(results_table(found))
        if out is not None:
            write_file(out, json.dumps(found, default=str, indent=1, ensure_ascii=False))


def _setting(text: str) -> tuple[str, Any]:
    """A name and its value, which is JSON or else text."""
    name, between, value = text.partition("=")
    if not name or not between:
        raise ArgumentError(f"--set {text!r} must be NAME=VALUE, such as temperature=0.8.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
