"""Runs the command line as people do: as a process of its own, over pipes or in a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loquent.cli.app import app

COMMAND = [sys.executable, "-m", "loquent"]


@pytest.fixture(scope="session")
def stories(shared_data: Path) -> str:
    return str(shared_data / "models/stories260k")


def environment(**changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**inherited, "TERM": "xterm", "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Within this process, where torch is imported once."""

    def run(*arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "200", **changes}, prog_name="loquent")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def run_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """As a process of its own."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(**changes))

    return run


# In a session of its own, the first terminal that a process opens becomes the one whose Ctrl-C reaches it.
IN_ITS_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"


class InTerminal:
    """A process whose three streams are a terminal."""

    def __init__(self, *arguments: str, **changes: str) -> None:
        self.terminal, its_end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_ITS_TERMINAL, *COMMAND, *arguments],
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            env=environment(**changes),
            start_new_session=True,
        )
        os.close(its_end)
        self.seen = ""

    def read_until(self, text: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come; there was {self.seen!r}"
            if select.select([self.terminal], [], [], left)[0] and not self._read():
                break
        assert text in self.seen, f"{text!r} did not come; there was {self.seen!r}"
        return self.seen

    def _read(self) -> bool:
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self.terminal, text.encode())

    def interrupt(self, until: str = "") -> None:
        """Press Ctrl-C; again each second until `until` is seen, since one at the wrong moment can go unnoticed."""
        self.type("\x03")
        for _ in range(30 if until else 0):
            if select.select([self.terminal], [], [], 1)[0]:
                self.read_until(until)
                return
            self.type("\x03")

    def end(self) -> int:
        """Everything is read; the exit code."""
        while select.select([self.terminal], [], [], 30)[0] and self._read():
            pass
        return self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)


@pytest.fixture
def in_terminal() -> Any:
    started: list[InTerminal] = []

    def start(*arguments: str, **changes: str) -> InTerminal:
        started.append(InTerminal(*arguments, **changes))
        return started[-1]

    yield start
    for each in started:
        each.close()
