"""`loquent train`: trains a model on files of texts and conversations; how it is trained is not known here."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loquent.cli.failures import INTERRUPTED, reported
from loquent.cli.options import OutputOptions
from loquent.cli.terminal import Terminal
from loquent.cli.training_data import DataOptions
from loquent.cli.training_display import Display, display_for
from loquent.cli.training_model import BeginningOptions, LoraOptions
from loquent.cli.training_options import EffortOptions, KeepingOptions, LearningOptions, StepOptions, training_arguments
from loquent.cli.training_run import Beginning, begin, prepare_folder, run
from loquent.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from loquent.training.events import Listener

EPILOG = """[bold]Examples[/bold]

loquent train --text stories.txt --model openai-community/gpt2 --epochs 1 --out my-gpt2

loquent train --dialogues talks.jsonl --dialogue-format eos --model microsoft/DialoGPT-small --out my-dialogpt

loquent train --text stories.txt.xz --config config.json --tokenizer my-tokenizer --lr 1e-3 --warmup-ratio 0.02
--schedule warmup_stable_decay --max-length 256 --batch-size 32 --out my-model

loquent train --dialogues talks.jsonl --lora-rank 8 --lora-target all-linear --out my-adapter

loquent train ... --out my-model --resume

accelerate launch --num-processes 2 -m loquent train --text stories.txt --out my-model

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted (the checkpoint has been written)."""


def train(
    data: DataOptions,
    model: BeginningOptions,
    lora: LoraOptions,
    steps: StepOptions,
    learning: LearningOptions,
    keeping: KeepingOptions,
    effort: EffortOptions,
    output: OutputOptions,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Where the model, its checkpoints and reports go.", rich_help_panel="Output"
        ),
    ],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the folder's last checkpoint, if any.", rich_help_panel="Output"),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write logs for TensorBoard, too.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Train a model on texts, conversations, or both.

    The folder gets the trained model with its tokenizer, training.jsonl with every event, loss.png with the curve, and
    the checkpoints on the way. A run that was stopped, in whatever way, goes on with --resume as if it never had been.
    With --json each event is a line on stdout.
    """
    # Processes of `accelerate launch` and torchrun have a rank; the first one speaks for all.
    is_main = os.environ.get("RANK", "0") == "0"
    terminal = Terminal(output.quiet or not is_main)
    with reported(terminal, output.debug):
        data.check()
        model.check()
        adapter = lora.config()
        arguments = training_arguments(out, steps, learning, keeping, effort, packing=data.packing)
        _check_extras(tensorboard)
        prepare_folder(out, resume)
        beginning = begin(model, adapter, effort, arguments.replace(resume_from_checkpoint="auto" if resume else False))
        beginning = beginning.fitted(data.max_length)
        data.written_as(beginning.tokenizer)
        terminal.notice(beginning.description)
        display = display_for(terminal, output.json and is_main)
        try:
            learned, held_out = data.examples(beginning.tokenizer, arguments.seed, display.watch)
            if held_out is None:
                _say_why_not_evaluated(arguments.eval_steps, terminal)
            reason = run(beginning, learned, held_out, _listeners(out, display, tensorboard and is_main))
        except KeyboardInterrupt:
            reason = "interrupted"
        finally:
            display.close()
        if is_main:
            _end(beginning, reason, lora.merge, terminal)
        if reason == "interrupted":
            raise typer.Exit(INTERRUPTED)


def _say_why_not_evaluated(eval_steps: int, terminal: Terminal) -> None:
    reason = "nothing is held out: --eval-text, --eval-dialogues or --eval-share says what"
    if eval_steps:
        raise ArgumentError(f"--eval-steps {eval_steps} asks for evaluations, and {reason}.")
    terminal.notice(reason)


def _check_extras(tensorboard: bool) -> None:
    """Refuse what needs a library that is not there, before any work is done."""
    processes = os.environ.get("WORLD_SIZE", "1")
    wanted = {"torch": "training"}
    wanted |= {"accelerate": f"training on {processes} devices"} if processes != "1" else {}
    wanted |= {"tensorboard": "--tensorboard"} if tensorboard else {}
    for library, purpose in wanted.items():
        if find_spec(library) is None:
            raise MissingExtraError(library, "train", purpose)


def _listeners(out: Path, display: Display, tensorboard: bool) -> list[Listener]:
    from loquent.training.reports import History
    from loquent.training.reports.tensorboard import TensorBoard

    return [display, History(out), *([TensorBoard(out)] if tensorboard else [])]


def _end(beginning: Beginning, reason: str, merge: bool, terminal: Terminal) -> None:
    """Draw the curve, merge what is to be merged, and say where everything is."""
    out = Path(beginning.arguments.output_dir)
    _draw(out, terminal)
    if reason == "interrupted":
        terminal.notice(_how_to_go_on(beginning.arguments.save_steps))
        return
    if merge:
        lost = beginning.merge()
        terminal.notice(f"{out / 'adapter'}: the adapter, which is merged into the model ({lost:.1%} lost to rounding)")
    terminal.notice(f"{out}: the model. Try it:")
    prompt = (
        "loquent chat --model" if beginning.tokenizer.chat_template else 'loquent generate "Once upon a time" --model'
    )
    terminal.notice(f"  {prompt} {shlex.quote(str(out))}")


def _draw(out: Path, terminal: Terminal) -> None:
    from loquent.training.reports.curve import draw_curve

    try:
        picture = draw_curve(out)
    except MissingExtraError as error:
        terminal.notice(f"there is no picture: {error}")
    else:
        if picture is not None:
            terminal.notice(f"{picture}: the loss curve")


def _how_to_go_on(save_steps: int) -> str:
    if not save_steps:
        return "interrupted; nothing was kept, since --save-steps 0 asks for no checkpoints"
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return f"interrupted. Go on with:\n  {shlex.join(['loquent', *arguments, '--resume'])}"
