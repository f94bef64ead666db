"""`loquent eval humaneval`: completions of HumanEval's problems, their tests where they are wanted, and pass@k."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loquent.cli.destinations import check_file
from loquent.cli.failures import reported
from loquent.cli.loading import load_model
from loquent.cli.memory import MemoryOptions
from loquent.cli.options import ModelOptions, OutputOptions, PrecisionName, group_option
from loquent.cli.progress import progress
from loquent.cli.terminal import Terminal

if TYPE_CHECKING:
    from loquent.evaluation.humaneval import Problem

EPILOG = """[bold]Examples[/bold]

loquent eval humaneval --problems HumanEval.jsonl.gz --out greedy.jsonl -t 0 --model bigcode/gpt_bigcode-santacoder

loquent eval humaneval --problems HumanEval.jsonl.gz --out samples.jsonl --samples 20 --run-tests

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted (the same command goes on from there)."""

_SAMPLING, _TESTS = "Sampling", "Tests"


def _shown(panel: str, *names: str, **settings: Any) -> Any:
    return group_option(panel, *names, show_default=True, **settings)


@dataclass(frozen=True)
class SamplingOptions:
    """How completions are drawn: the fields of `Sampling`, but for the model's name."""

    samples: Annotated[int, _shown(_SAMPLING, min=1, metavar="N", help="Completions of each problem.")] = 1
    temperature: Annotated[float, _shown(_SAMPLING, "--temperature", "-t", min=0, metavar="X", help="0 is greedy.")] = (
        0.2
    )
    top_p: Annotated[float, _shown(_SAMPLING, min=0, max=1, metavar="X", help="As for generate.")] = 0.95
    max_new_tokens: Annotated[
        int, _shown(_SAMPLING, "--max-new-tokens", "-n", min=1, metavar="N", help="The most to write.")
    ] = 512
    seed: Annotated[int, _shown(_SAMPLING, min=0, metavar="N", help="Makes draws repeatable.")] = 0


@dataclass(frozen=True)
class RunningOptions:
    """Whether what the model wrote is run, and how."""

    run_tests: Annotated[
        bool | None,
        group_option(
            _TESTS,
            "--run-tests/--no-tests",
            help="Run what the model wrote, on this machine, confined. (default: ask in a terminal, else no)",
        ),
    ] = None
    seconds: Annotated[int, _shown(_TESTS, min=1, metavar="N", help="Processor time of a test.")] = 3
    workers: Annotated[
        int | None,
        group_option(_TESTS, min=1, metavar="N", help="Tests that run at once. (default: as many as processors)"),
    ] = None

    def ask(self) -> bool:
        """Whether what the model wrote may be run: as the option says, or else somebody at a terminal."""
        if self.run_tests is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return bool(self.run_tests)
        return typer.confirm("Run the code that the model wrote, which nobody has read, on this machine?", err=True)


def humaneval(
    model: ModelOptions,
    memory: MemoryOptions,
    output: OutputOptions,
    sampling: SamplingOptions,
    tests: RunningOptions,
    problems: Annotated[
        Path, typer.Option("--problems", metavar="FILE", help="The problems: HumanEval.jsonl.gz as published.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="Where the completions are kept. What is there is not written again."
        ),
    ],
) -> None:
    """Let a model write the functions of HumanEval, and say how many are right.

    The completions go to --out, a line for each; an interrupted run goes on where it was. [bold]Tests run code that a
    model wrote, which nobody has read.[/bold] They do so only with --run-tests, or after a question in a terminal: each
    in a process of its own, with limits on time and memory, to which the kernel refuses other processes, signals, the
    network, and changes to files outside its folder. It can still read your files. Where the kernel cannot do that,
    nothing is run.

    Results go to a file beside --out, with .results before its ending. Printed is pass@k for 1, 10 and 100, as far as
    there are samples; with --json as an object.
    """
    terminal = Terminal(output.quiet)
    with reported(terminal, output.debug):
        from loquent.evaluation.humaneval import Sampling, missing_completions, read_problems, write_completions
        from loquent.evaluation.humaneval.sandbox import require_sandbox

        if tests.run_tests:
            require_sandbox()
        drawn = Sampling(_name(model), **vars(sampling))
        wanted = read_problems(problems)
        check_file("--out", out, "completions.jsonl")
        check_file("--out", _results(out), "completions.jsonl")
        if missing_completions(wanted, out, drawn):
            loaded = load_model(model, terminal, memory.kv_memory)
            with progress(terminal, "completions") as told:
                write_completions(loaded, wanted, out, drawn, told, **memory.for_generation({}))
        terminal.notice(f"{out}: {drawn.samples} completions for each of {len(wanted)} problems")
        if tests.ask():
            _test(terminal, wanted, out, drawn.samples, tests, output.json)
        else:
            terminal.notice("The tests were not run: they run what the model wrote. --run-tests does it.")


def _results(out: Path) -> Path:
    """Where the results of some completions go."""
    return out.with_suffix(f".results{out.suffix}")


def _name(model: ModelOptions) -> str:
    """What tells completions of different models apart: its name, and how it is loaded."""
    precision = "" if model.precision is PrecisionName.auto else model.precision.value
    return " ".join(part for part in (model.model or "default", model.revision, precision) if part)


def _test(
    terminal: Terminal, problems: list[Problem], out: Path, samples: int, options: RunningOptions, as_json: bool
) -> None:
    from loquent.evaluation.humaneval import Limits, pass_rates, run_tests

    results = _results(out)
    limits = Limits(seconds=options.seconds, patience=3.0 * options.seconds + 1)
    with progress(terminal, "tests") as told:
        found = run_tests(problems, out, results, limits=limits, workers=options.workers, progress=told)
    found = [line for line in found if line["sample"] < samples]  # of a file with more
    rates = {f"pass@{k}": rate for k, rate in pass_rates(found).items()}
    if as_json:
        passed = sum(bool(line["passed"]) for line in found)
        terminal.line({**rates, "completions": len(found), "passed": passed, "problems": len(problems)})
    else:
        for name, rate in rates.items():
            terminal.text(f"{name}\t{rate:.4f}\n")
    terminal.notice(f"{results}: what became of each")
