"""`loquent adapter merge`: an adapter's folder and its base model to one model; training one is `loquent train`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loquent.cli.destinations import check_folder
from loquent.cli.failures import reported
from loquent.cli.groups import command_group
from loquent.cli.terminal import Terminal
from loquent.cli.training_model import DtypeName
from loquent.errors import ArgumentError

EPILOG = """[bold]Examples[/bold]

loquent adapter merge my-adapter --out my-model

loquent adapter merge my-adapter --base openai-community/gpt2 --dtype float32 --out my-model

[bold]Exit codes[/bold]: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""

adapter = command_group("adapter", "Work with LoRA adapters.")


@adapter.command("merge", epilog=EPILOG)
def merge(
    folder: Annotated[str, typer.Argument(metavar="ADAPTER", help="A folder, or a name on the hub.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write, made if need be.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The base model. (default: as the adapter says)", show_default=False),
    ] = None,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(help="How weights are held. (default: as the base model's are)", show_default=False),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Merge a LoRA adapter into its base model, and write the model that comes of it.

    The sum is taken in float32 and rounded once; how much of the adapter rounding lost is said.
    """
    terminal = Terminal(quiet)
    with reported(terminal, debug):
        from loquent.config.lora import LoraConfig

        if (out / "config.json").exists() or (out / "adapter_config.json").exists():
            raise ArgumentError(f"--out {out} holds a model already. Name another folder.")
        check_folder("--out", out)
        hub: dict[str, Any] = {"local_files_only": offline}
        config = LoraConfig.from_pretrained(folder, **hub)
        name = base or config.base_model_name_or_path
        if not name:
            raise ArgumentError(f"{folder} does not say which model it was trained on. Pass --base.")
        from loquent import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(name, dtype="auto" if dtype is None else dtype.value, **hub)
        model.load_adapter(folder, **hub)
        merged = model.merge_adapter()
        model.merge_and_unload()
        model.save_pretrained(out)
        _tokenizer(folder, name, hub).save_pretrained(out)
        terminal.notice(f"{out}: {merged.layers} layers merged, {merged.lost:.1%} of the adapter lost to rounding")


def _tokenizer(folder: str, base: str, hub: dict[str, Any]) -> Any:
    """What the adapter was trained with, where its folder has a tokenizer; else the base model's."""
    from loquent import AutoTokenizer
    from loquent.hub.resolve import resolve_file

    own = resolve_file(folder, "tokenizer_config.json", required=False, **hub)
    return AutoTokenizer.from_pretrained(base if own is None else folder, **hub)
