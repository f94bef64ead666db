"""What the compiler made of the kernels: code for newer processors stays behind the choice of an instruction set."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from native.building import build, tool

NEWER = ("avx2", "avx512", "neon")


def symbols(library: Path, kinds: str) -> set[str]:
    """The names that a library defines, of these letters of nm(1)."""
    listed = subprocess.run([tool("nm"), "-C", "--defined-only", library], capture_output=True, text=True, check=True)
    found = re.findall(rf"^[0-9a-f]+ [{kinds}] (.*)$", listed.stdout, re.MULTILINE)
    return set(found)


@pytest.mark.parametrize("name", NEWER)
def test_functions_that_the_linker_merges_have_a_version_for_every_processor(name: str) -> None:
    """The linker keeps the first definition that it meets; the core's and the portable kernels' come first."""
    folder = build()
    library = folder / f"libloquent_{name}.a"
    if not library.exists():
        pytest.skip(f"not compiled for {name} here")
    core = folder.glob("CMakeFiles/loquent_core.dir/**/*.o")
    everywhere = set().union(*(symbols(path, "WVu") for path in [*core, folder / "libloquent_portable.a"]))
    merged = {symbol for symbol in symbols(library, "WVu") if f"loquent::{name}::" not in symbol}
    assert merged - everywhere == set()


@pytest.mark.parametrize("name", NEWER)
def test_nothing_runs_before_the_choice(name: str) -> None:
    library = build() / f"libloquent_{name}.a"
    if not library.exists():
        pytest.skip(f"not compiled for {name} here")
    assert {symbol for symbol in symbols(library, "tT") if symbol.startswith("_GLOBAL__sub_I")} == set()
    assert any(symbol.startswith(f"loquent::{name}::table") for symbol in symbols(library, "T"))
