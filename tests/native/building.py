"""Builds the C++ tests as programs and runs them; a test is skipped where what it needs is not installed."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/loquent/native/src"
PROGRAMS = sorted(path.stem for path in (SOURCES / "tests").glob("test_*.cpp"))


def tool(*names: str) -> str:
    """The first of these programs that is installed, as a path; the test is skipped where none is."""
    # cmake and ninja come with the `build` extra, whose scripts need not be on the PATH.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    pytest.skip(f"{' and '.join(names)} not installed")


@functools.cache
def build() -> Path:
    """The folder with the programs as `make native` compiles the core; only what has changed is compiled."""
    if importlib.util.find_spec("nanobind") is None:
        pytest.skip("nanobind is not installed")
    tool("c++", "g++", "clang++")
    path = os.pathsep.join(str(Path(tool(name)).parent) for name in ("cmake", "ninja"))
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    execute(ROOT / "scripts/build_native.sh", sys.executable, "-DLOQUENT_NATIVE_TESTS=ON", environment=environment)
    suffix: str = sysconfig.get_config_var("EXT_SUFFIX")
    return ROOT / "build" / f"native{suffix.removesuffix('.so')}"


@functools.cache
def build_preset(preset: str) -> Path:
    """The folder with the programs of one preset of CMakePresets.json; only what has changed is compiled."""
    cmake, ninja = tool("cmake"), tool("ninja")
    tool("aarch64-linux-gnu-g++") if preset == "aarch64" else tool("c++", "g++", "clang++")
    folder = ROOT / "build" / preset
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other processes of pytest-xdist want it too
        execute(cmake, "--preset", preset, f"-DCMAKE_MAKE_PROGRAM={ninja}", "--log-level=WARNING")
        execute(cmake, "--build", "--preset", preset)
    return folder


def execute(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"


def run(*command: str | Path, **environment: str) -> str:
    """What a program that succeeds prints."""
    variables = {name: value for name, value in os.environ.items() if name not in ("LOQUENT_ISA", "LOQUENT_THREADS")}
    done = subprocess.run(command, env=variables | environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{environment} {command}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def instruction_sets(*launcher: str, folder: Path) -> list[str]:
    """What `test_dispatch` finds that its processor runs, best first."""
    return run(*launcher, folder / "test_dispatch").split("\n")[0].split()
