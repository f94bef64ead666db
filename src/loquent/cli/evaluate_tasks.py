"""`loquent eval tasks`: the tasks of lm-eval on a model; the tasks and their figures are lm-eval's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from loquent.cli.destinations import check_file, write_file
from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.options import ModelOptions, OutputOptions, group_option
from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError

EPILOG = """[bold]Examples[/bold]

loquent eval tasks --tasks lambada_openai,hellaswag --limit 100

loquent eval tasks --tasks gsm8k --chat --model SmallDoge/Doge-20M-Instruct --out gsm8k.json

loquent eval tasks --tasks my_task --include-path ./tasks --kv-bits 4

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""


_QUESTIONS, _MEMORY = "Questions", "Memory"


@dataclass(frozen=True)
class QuestionOptions:
    """Which questions are asked, and how they are written; what is left out is as the task says."""

    include_path: Annotated[
        Path | None,
        group_option(
            _QUESTIONS,
            "--include-path",
            metavar="FOLDER",
            help="Further tasks. They can bring code of their own, which is run.",
        ),
    ] = None
    num_fewshot: Annotated[
        int | None,
        group_option(_QUESTIONS, min=0, metavar="N", help="Solved questions before each. (default: the task's)"),
    ] = None
    limit: Annotated[
        float | None,
        group_option(_QUESTIONS, min=0, metavar="X", help="Questions of each task; below 1: which part of them."),
    ] = None
    chat: Annotated[
        bool, group_option(_QUESTIONS, "--chat", help="Write questions as conversations, by the chat template.")
    ] = False
    system: Annotated[str | None, group_option(_QUESTIONS, metavar="TEXT", help="What the model is told before.")] = (
        None
    )
    settings: Annotated[
        list[str] | None,
        group_option(
            _QUESTIONS,
            "--set",
            metavar="NAME=VALUE",
            help="A setting in place of the task's, such as temperature=0.8.",
        ),
    ] = None
    seed: Annotated[
        int,
        group_option(_QUESTIONS, min=0, metavar="N", help="Of examples, and of what is drawn.", show_default=True),
    ] = 0

    def for_evaluation(self) -> dict[str, Any]:
        """The arguments of `evaluate_tasks` that these options mean.

        Raises:
            ArgumentError: a setting has no name or no value.
        """
        limit = self.limit
        return {
            "include_path": self.include_path,
            "num_fewshot": self.num_fewshot,
            "limit": int(limit) if limit is not None and limit >= 1 else limit,
            "apply_chat_template": self.chat,
            "system_instruction": self.system,
            "gen_kwargs": dict(map(_setting, self.settings or ())) or None,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class ReadingOptions:
    """How much is read at once, and how it is kept."""

    max_length: Annotated[
        int | None,
        group_option(_MEMORY, min=1, metavar="N", help="How many tokens are read at once. (default: all positions)"),
    ] = None
    kv_bits: Annotated[
        int | None,
        group_option(_MEMORY, "--kv-bits", min=1, max=8, metavar="N", help="Keep keys and values in so many bits."),
    ] = None
    kv_memory: Annotated[
        str | None, group_option(_MEMORY, "--kv-memory", metavar="SIZE", help="The most memory that they may take.")
    ] = None


def tasks(
    model: ModelOptions,
    questions: QuestionOptions,
    reading: ReadingOptions,
    output: OutputOptions,
    names: Annotated[
        str, typer.Option("--tasks", metavar="A,B", help="Names of tasks or groups, with commas between.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write all that lm-eval tells, as JSON.")
    ] = None,
) -> None:
    r"""Run tasks of EleutherAI's lm-eval on a model.

    Needs pip install "loquent\[eval]". The first run of a task fetches its data from the hub. The tables go to stdout
    as lm-eval shows them; with --json an object for each task. `python -m loquent.evaluation.harness` is lm-eval's own
    command, which knows the model `loquent`.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        from loquent.evaluation.harness import evaluate_tasks, harness_model, results_table

        harness_model()  # before anything is loaded
        asked = questions.for_evaluation()
        if out is not None:
            check_file("--out", out, "results.json")
        loaded = load_model(model, terminal, reading.kv_memory)
        wanted = [name for name in names.split(",") if name]
        found = evaluate_tasks(loaded, wanted, max_length=reading.max_length, kv_bits=reading.kv_bits, **asked)
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
