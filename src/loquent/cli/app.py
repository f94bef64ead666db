"""The command line's commands, put together; each is in a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from loquent.cli import adapter, chat, doctor, evaluate, generate, quantize, score, tokenizer, train
from loquent.cli.options import with_groups
from loquent.version import __version__

app = typer.Typer(
    name="loquent",
    help="Write text and talk with open-weight language models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate", epilog=generate.EPILOG)(with_groups(generate.generate))
app.command("chat", epilog=chat.EPILOG)(with_groups(chat.chat))
app.command("score", epilog=score.EPILOG)(with_groups(score.score))
app.add_typer(evaluate.app)
app.command("quantize", epilog=quantize.EPILOG)(quantize.quantize)
app.command("train", epilog=train.EPILOG)(with_groups(train.train))
app.add_typer(adapter.adapter)
app.add_typer(tokenizer.tokenizer)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loquent {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Write text and talk with open-weight language models."""
