"""Children that stay alive and answer a line for each line they are asked; knows nothing of what they measure."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

MIB = 1 << 20


class ChildFailedError(Exception):
    """A child ended where an answer was expected; carries what it wrote about it."""


class Resident(NamedTuple):
    """Memory that a process holds now, in MiB."""

    own: float  # its own
    mapped: float  # files that it has mapped, which processes share


class Child:
    """A process and its lines."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.command = command
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask_line(self, line: str) -> str:
        """The line that answers a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        return self.read_line()

    def read_line(self) -> str:
        """The next line that the child writes."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            self._fail()
        return answer

    def ready(self) -> str:
        """Wait until it serves; its version."""
        return str(json.loads(self.read_line()))

    def ask(self, **request: Any) -> Any:
        """A request and its answer, as JSON."""
        return json.loads(self.ask_line(json.dumps(request)))

    def resident(self) -> Resident:
        """What the process holds in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        parts = {name: int(kib) / 1024 for name, kib in re.findall(r"^Rss(\w+):\s+(\d+) kB", status, re.MULTILINE)}
        return Resident(parts["Anon"] + parts["Shmem"], parts["File"])

    def close(self) -> None:
        """End it, and wait until it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _fail(self) -> None:
        self._process.wait()
        self._errors.seek(0)
        said = "\n".join(self._errors.read().strip().splitlines()[-12:])
        raise ChildFailedError(f"{shlex.join(self.command)}\n{said}")


def seconds_to_first_line(command: Sequence[str], environment: dict[str, str]) -> float:
    """From the start of a process to the first line that it writes."""
    start = time.perf_counter()
    child = Child(command, environment)
    child.read_line()
    seconds = time.perf_counter() - start
    child.close()
    return seconds
