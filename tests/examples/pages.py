"""Runs what a page of the documentation shows: its commands and programs, for what they print. No test by itself.

A block that begins with `loquent ` is a command, a block of python a program, which knows the names of those before it.
What they print is the block of text that follows, if one does. `python tests/examples/pages.py PAGE` writes it there.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from loquent.cli.app import app

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Example(NamedTuple):
    """A command or a program, and what it prints by the page."""

    line: int
    source: str
    is_program: bool
    shown: str
    place: tuple[int, int] | None  # where in the page that is; None: nowhere

    def output(self, names: dict[str, Any]) -> str:
        """What it prints, without spaces at the ends of lines."""
        printed = _of_program(self.source, names) if self.is_program else _of_command(self.source)
        return "".join(f"{line.rstrip()}\n" for line in printed.rstrip("\n").split("\n")) if printed else ""


def examples(page: str) -> Iterator[Example]:
    """Those of a page, in order."""
    blocks = list(_BLOCK.finditer(page))
    for block, behind in zip(blocks, [*blocks[1:], None]):
        is_program = block[1] == "python"
        if not is_program and (block[1] or not block[2].startswith("loquent ")):
            continue
        answers = behind is not None and behind[1] == "text" and not page[block.end() : behind.start()].strip()
        place = behind.span(2) if behind is not None and answers else None
        shown = behind[2] if behind is not None and answers else ""
        yield Example(page.count("\n", 0, block.start()) + 2, block[2], is_program, shown, place)


def _of_program(source: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(source, names)
    return printed.getvalue()


def _of_command(source: str) -> str:
    arguments = shlex.split(source)[1:]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1"}, prog_name="loquent")
    if result.exit_code:
        raise AssertionError(f"{source}: {result.stderr}")
    return result.stdout


def rewritten(page: str, shows: Callable[[Example], str]) -> str:
    """The page with what each of its examples shows."""
    for example, shown in reversed([(each, shows(each)) for each in examples(page)]):
        if example.place is not None:
            page = page[: example.place[0]] + shown + page[example.place[1] :]
    return page


if __name__ == "__main__":
    path, known = Path(sys.argv[1]), dict[str, Any]()
    path.write_text(rewritten(path.read_text("utf-8"), lambda example: example.output(known)), "utf-8")
