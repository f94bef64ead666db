"""What becomes of a command's exceptions: one clear line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from loquent.cli.terminal import Terminal
from loquent.errors import ArgumentError, ContextLengthError, LoquentError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


@contextmanager
def reported(terminal: Terminal, debug: bool) -> Iterator[None]:
    """Report exceptions: LoquentErrors as a line (with `debug` their traceback too), bugs as Python does.

    Exit codes: 1 failed, 2 arguments that cannot work, 130 interrupted. A reader that closed the pipe is no error.
    """
    try:
        yield
    except LoquentError as error:
        if debug:
            traceback.print_exc()
        terminal.error(str(error))
        wrong_usage = isinstance(error, ArgumentError) and not isinstance(error, ContextLengthError)
        raise typer.Exit(USAGE if wrong_usage else FAILED) from None
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would fail aloud.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
