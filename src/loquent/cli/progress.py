"""How far a long command is: a bar on stderr, where that is a terminal and nobody wants quiet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loquent.cli.terminal import Terminal, is_styled


@contextmanager
def progress(terminal: Terminal, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """What takes how much is done, and of how much; None where nobody looks. The bar is gone at the end."""
    if terminal.quiet or not is_styled(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
