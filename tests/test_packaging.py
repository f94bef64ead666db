"""What is installed: source distributions and wheels, with a C++ compiler and without one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from native.building import ROOT, SOURCES, tool

pytest.importorskip("scikit_build_core", reason="the build backend is not installed")

PACKAGE = ROOT / "src/loquent"


def build(function: str, source: Path, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Call a function of the build backend (PEP 517) as pip does; the archive is in `folder`."""
    code = f"import sys; from scikit_build_core.build import {function} as build; build(sys.argv[1])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SKBUILD_", "CMAKE_"))}
    return subprocess.run(
        [sys.executable, "-c", code, folder],
        cwd=source,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    done = build("build_sdist", ROOT, folder, os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for the PATH that has cmake and ninja, and no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cmake", "ninja"):
        (folder / name).symlink_to(tool(name))
    return folder


def unpacked_wheel(source: Path, folder: Path, path: str) -> tuple[Path, str]:
    """The files of the wheel that is built from a source distribution, and what was said about it."""
    done = build("build_wheel", source, folder, path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder / "installed")
    return folder / "installed", done.stdout + done.stderr


def python_files() -> set[str]:
    return {str(path.relative_to(PACKAGE)) for pattern in ("*.py", "*.pyi") for path in PACKAGE.rglob(pattern)}


def say(installed: Path, code: str) -> str:
    """What a program prints for which this is installed, and no other Loquent; stderr too."""
    # Without `site` nothing reads how this checkout itself is installed.
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-S", "-c", f"import loquent; assert {str(installed)!r} in loquent.__file__\n{code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_the_source_distribution_has_all_that_building_and_testing_need(sdist: Path) -> None:
    held = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    native = {str(path.relative_to(ROOT)) for path in SOURCES.rglob("*.[ch]pp")}
    assert len(native) > 20
    assert native <= held
    assert {f"src/loquent/{name}" for name in python_files()} <= held
    assert {"CMakeLists.txt", "CMakePresets.json", "pyproject.toml", "scripts/build_native.sh", "LICENSE"} <= held
    assert {"tests/conftest.py", "src/loquent/models/default/model.safetensors", "src/loquent/py.typed"} <= held
    assert {name for name in held if name.endswith((".so", ".o", ".a", ".pyc")) or name.startswith("build/")} == set()


def test_without_a_compiler_it_installs_and_says_what_is_missing(sdist: Path, tmp_path: Path, bare_path: Path) -> None:
    installed, said = unpacked_wheel(sdist, tmp_path, str(bare_path))
    assert "without its native core" in " ".join(said.split())
    assert 'pip install "loquent[torch]"' in said
    held = {str(path.relative_to(installed / "loquent")) for path in (installed / "loquent").rglob("*")}
    assert python_files() <= held
    assert {name for name in held if name.endswith((".so", ".cpp", ".hpp", ".txt"))} == set()
    answer = say(installed, "from loquent.native import available, core; print(available()); core()")
    assert answer.startswith("False\n")
    assert "NativeError" in answer
    assert "Install a C++ compiler" in answer
    assert 'pip install "loquent[torch]"' in answer


def test_a_compiler_that_does_not_work_is_an_error(sdist: Path, tmp_path: Path, bare_path: Path) -> None:
    broken = bare_path / "c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    done = build("build_wheel", sdist, tmp_path, str(bare_path))
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.slow
def test_with_a_compiler_the_wheel_has_the_core_and_not_its_sources(sdist: Path, tmp_path: Path) -> None:
    pytest.importorskip("nanobind", reason="nanobind is not installed")
    tool("c++", "g++", "clang++")
    installed, _ = unpacked_wheel(sdist, tmp_path, os.environ["PATH"])
    (core,) = (installed / "loquent/native").glob("_core*.so")
    assert core.stat().st_size < 4 * 2**20
    assert not list(installed.rglob("*.[ch]pp"))
    assert say(installed, "from loquent.native import core; print(core().instruction_sets()[-1])") == "portable\n"


@pytest.mark.slow
def test_sources_that_do_not_compile_are_an_error(sdist: Path, tmp_path: Path) -> None:
    pytest.importorskip("nanobind", reason="nanobind is not installed")
    tool("c++", "g++", "clang++")
    source = sdist / "src/loquent/native/src/dispatch.cpp"
    text = source.read_text()
    source.write_text(f"{text}\n#error not C++\n")
    try:
        done = build("build_wheel", sdist, tmp_path, os.environ["PATH"])
    finally:
        source.write_text(text)
    assert done.returncode != 0
    assert "not C++" in done.stdout + done.stderr
