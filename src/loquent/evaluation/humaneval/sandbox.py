"""Runs a program that nobody has read, in a process that can do little; what it may do still is said here, and no more.

A program may use so much processor time and memory, and write small files into a folder of its own. The kernel refuses
it new processes, signals, sockets, mounts and the like (a seccomp filter), and, where it knows how, to change any other
file (Landlock). It can read every file that its user can read, and it can look for the secret of its own report: a
program that was made to cheat passes. Where the kernel cannot refuse, nothing is run.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from loquent.errors import ArgumentError
from loquent.evaluation.humaneval import confined

_CHILD = Path(confined.__file__)
_KEPT = 2000  # characters of what it printed


@dataclass(frozen=True)
class Limits:
    """Of one program."""

    seconds: int = 3  # of processor time
    patience: float = 10.0  # seconds on the clock
    memory: int = 1 << 30  # bytes of addresses, Python's own among them
    written: int = 1 << 20  # bytes of a file, and of what is printed

    def __post_init__(self) -> None:
        if self.seconds < 1 or self.patience <= 0 or self.memory < 64 << 20 or self.written < 0:
            raise ArgumentError(f"{self} cannot work: a program needs a second or more, and 64 MiB.")


@dataclass(frozen=True)
class Outcome:
    """What became of a program."""

    passed: bool
    reason: str  # "passed", or why not
    output: str  # the beginning of what it printed
    seconds: float  # on the clock


def run_program(source: str, limits: Limits | None = None) -> Outcome:
    """Run a Python program, confined; it passes if it comes to its end without an exception.

    Raises:
        ArgumentError: it cannot be confined here.
    """
    limits = limits or Limits()
    secret, began = secrets.token_hex(confined.SECRET // 2).encode(), time.monotonic()
    reading, writing = os.pipe()
    with open(reading, "rb") as reports:
        try:
            code, output = _run(secret + source.encode(errors="replace"), limits, writing)
        finally:
            os.close(writing)  # so that reading comes to an end
        report = reports.read(_KEPT)
    said = report[len(secret) :].decode(errors="replace") if report.startswith(secret) else ""
    if said.startswith(confined.UNABLE):
        raise ArgumentError(f"run_tests: programs cannot be confined here ({said[1:]}). {_REMEDY}")
    return Outcome(said == "passed", said or _ending(code), output, time.monotonic() - began)


def _run(text: bytes, limits: Limits, report: int) -> tuple[int | None, str]:
    """The exit code of the process that is given a text (None: it had to be ended), and what it printed."""
    with (
        tempfile.TemporaryDirectory(prefix="loquent-") as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as printed,
    ):
        given.write(text)
        given.seek(0)
        process = subprocess.Popen(
            _command(limits, report, folder),
            stdin=given,
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(folder),
            pass_fds=(report,),
            start_new_session=True,
        )
        code = _wait(process, limits.patience)
        printed.seek(0)
        return code, printed.read(_KEPT).decode(errors="replace")


def _command(limits: Limits, report: int, folder: str) -> list[str]:
    numbers = (report, limits.memory, limits.seconds, limits.written)
    return [sys.executable, "-I", "-B", str(_CHILD), platform.machine(), *map(str, numbers), folder]


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours; libraries shall not start threads for every processor."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"LC_ALL": "C.UTF-8", "HOME": folder, "TMPDIR": folder, **threads}


def _wait(process: subprocess.Popen[bytes], patience: float) -> int | None:
    """Its exit code; None where it had to be ended."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ending(code: int | None) -> str:
    """Why a program did not report."""
    if code is None:
        return "took too long"
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "used too much processor time"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"left early, with exit code {code}"


_REMEDY = "Run the tests on Linux (x86-64 or ARM64, with seccomp), or give the completions to a tool elsewhere."
_PROBE = """
import os, socket
for what in (os.fork, lambda: os.kill(os.getppid(), 0), socket.socket):
    try:
        what()
    except PermissionError:
        continue
    raise SystemError(f"{what} is allowed")
"""


@cache
def why_unavailable() -> str | None:
    """Why programs cannot be confined here; None: they can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp filters"
    if platform.machine() not in confined.CALLS:
        return f"the system calls of {platform.machine()} are not known"
    if find_spec("resource") is None:
        return "this Python cannot limit resources"
    try:
        found = run_program(_PROBE, Limits(patience=60))
    except ArgumentError as error:
        return str(error)
    return None if found.passed else f"a trial program was not confined: {found.reason}"


def require_sandbox() -> None:
    """Refuse to run programs where they cannot be confined.

    Raises:
        ArgumentError: they cannot.
    """
    obstacle = why_unavailable()
    if obstacle:
        raise ArgumentError(f"run_tests: programs cannot be confined here: {obstacle}. {_REMEDY}")
