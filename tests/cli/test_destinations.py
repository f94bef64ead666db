"""Where commands write at their end: what is refused, and that asking leaves no trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loquent.cli.destinations import check_file, check_folder, write_file
from loquent.errors import ArgumentError, LoquentError


def test_asking_leaves_no_trace(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("kept", encoding="utf-8")
    check_file("--out", there, "a.json")
    check_file("--out", tmp_path / "new.json", "a.json")
    check_folder("--out", tmp_path)
    check_folder("--out", tmp_path / "new" / "below")
    assert list(tmp_path.iterdir()) == [there]
    assert there.read_text(encoding="utf-8") == "kept"


def test_a_pipe_that_nobody_reads_yet_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_file("--out", tmp_path / "pipe", "a.json")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("", "is a folder"),
        ("none/a.json", "is in no folder that there is"),
        ("there/a.json", "is in no folder that there is"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, file: str, reason: str) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(ArgumentError, match=rf"^--out '.*' {reason}\. Name a file, such as a\.json\.$"):
        check_file("--out", tmp_path / file, "a.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_places_without_permission_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.json").touch(0o400)
    tmp_path.chmod(0o500)
    for name in ("there.json", "new.json"):
        with pytest.raises(ArgumentError, match="cannot be written: Permission denied"):
            check_file("--out", tmp_path / name, "a.json")
    with pytest.raises(ArgumentError, match="cannot be written in: Permission denied"):
        check_folder("--out", tmp_path)
    with pytest.raises(ArgumentError, match="cannot be made: Permission denied"):
        check_folder("--out", tmp_path / "new")


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("there", "there is a file"), ("there/new", "there is a file"), ("x" * 300, "File name too long")],
)
def test_folders_that_are_refused(tmp_path: Path, folder: str, reason: str) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(ArgumentError, match=rf"^--out .* cannot be made: .*{reason}\. Name another folder\.$"):
        check_folder("--out", tmp_path / folder)


def test_a_disk_that_is_full_at_the_end_is_an_error_that_says_so() -> None:
    with pytest.raises(LoquentError, match=r"^could not write /dev/full: No space left on device$"):
        write_file(Path("/dev/full"), "text")
