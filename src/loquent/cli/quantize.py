"""`loquent quantize`: writes a packed folder, which loads without a copy; it writes no text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loquent.cli.destinations import check_folder
from loquent.cli.failures import reported
from loquent.cli.options import PrecisionName
from loquent.cli.terminal import Terminal

EPILOG = """[bold]Examples[/bold]

loquent quantize openai-community/gpt2 gpt2-int8

loquent quantize ./my-model ./my-model-int4 --precision int4

loquent generate --model gpt2-int8 "The sea was"

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or a name on the hub.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, made if need be.")],
    precision: Annotated[PrecisionName, typer.Option(help="How the weights are held.")] = PrecisionName.int8,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="The most that a file may have.")] = "5GB",
    revision: Annotated[str | None, typer.Option(metavar="TEXT", help="A branch, tag or commit of the model.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Pack a model's weights for the CPU, in int8, int4 or a float type.

    The folder holds the config, the tokenizer and the packed weights. What loads it maps it from the disk: nothing is
    copied, and processes share the memory.
    """
    terminal = Terminal(quiet)
    with reported(terminal, debug):
        from loquent.native.loading import quantize as write

        check_folder("OUT", folder)
        written = write(model, folder, precision.value, max_shard_size, revision=revision, local_files_only=offline)
        size = sum(path.stat().st_size for path in written.glob("*.safetensors"))
        terminal.notice(f"{written}: {size / 1e6:,.1f} MB of weights in {precision.value}")
