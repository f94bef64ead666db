"""`loquent doctor`: what this installation has, and what it lacks; changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from loquent.cli.failures import FAILED
from loquent.cli.terminal import Terminal

EPILOG = """[bold]Exit codes[/bold]: 0 everything needed is there, 1 something is missing (the remedy is printed)."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a finding.")] = False,
) -> None:
    """Show versions, hardware, backends, the cache and the default model, and what is missing."""
    from loquent.cli.findings import findings

    terminal = Terminal()
    found = findings()
    if as_json:
        for finding in found:
            terminal.line(asdict(finding))
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            terminal.text(f"{'x' if finding.remedy else ' '} {finding.name:<{width}}  {finding.value}\n")
    missing = [finding for finding in found if finding.remedy]
    for finding in missing:
        terminal.error(f"{finding.name}: {finding.remedy}")
    if missing:
        raise typer.Exit(FAILED)
