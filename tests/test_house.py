"""The house: the commands that the README gives, what CI runs, pins for what is installed, and how long lines are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def requirements() -> set[str]:
    """The names of all dependencies in pyproject.toml, extras included."""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[.*?^\[project\.scripts\]", text, re.DOTALL | re.MULTILINE)
    assert listed
    names = re.findall(r'"([A-Za-z][\w.-]*)(?:\[[\w,]+\])?(?:[><=~!][^"]*)?"', listed.group())
    return {normalized(name) for name in names} - {"loquent"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text().split("```")[1]
    assert [line.split("#")[0].strip() for line in opening.strip().splitlines()] == ["make run", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^run:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_ci_runs_the_readmes_test_command_and_every_check() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make style", "make types", "make imports"]
    makefile = (ROOT / "Makefile").read_text()
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert f"$(BIN)/{check}" in makefile


def test_everything_that_is_installed_has_an_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([\w.-]+)==[\w.]+(; python_version .*)?", line) for line in lines]
    assert all(pins)
    pinned = {normalized(pin.group(1)) for pin in pins if pin}
    assert len(requirements()) > 12
    assert requirements() <= pinned


def test_the_native_core_keeps_to_the_line_length_of_the_package() -> None:
    length = re.search(r"^line-length = (\d+)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert length
    sources = sorted((ROOT / "src" / "loquent" / "native" / "src").rglob("*.[ch]pp"))
    assert len(sources) > 40
    for path in (*sources, ROOT / "CMakeLists.txt", ROOT / "CMakePresets.json"):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        long = [number for number, line in lines if len(line) > int(length.group(1))]
        assert not long, f"{path.relative_to(ROOT)}: {long}"


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_within_the_documentation_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
