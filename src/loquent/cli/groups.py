"""Commands that have commands of their own, as `loquent tokenizer train`; what these do is in modules of theirs."""

from __future__ import annotations

import typer


def command_group(name: str, about: str) -> typer.Typer:
    """A group of commands, which is one with a single command too."""
    group = typer.Typer(
        name=name,
        help=about,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @group.callback()
    def of_all() -> None:
        """Nothing: without it a single command would take the group's place."""

    return group
