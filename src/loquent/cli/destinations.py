"""Where commands write at their end: what could not be written there is refused before hours of work."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from loquent.errors import ArgumentError, LoquentError


def check_file(option: str, file: Path, example: str) -> None:
    """Refuse a file that could not be written; one that is there stays as it is, and none is made.

    Args:
        option: which option names it.
        file: what it names. A device or a pipe is not tried, since whoever reads it would see that.
        example: a name for the message.

    Raises:
        ArgumentError: it is a folder, its folder is not there, or this user cannot write it.
    """
    try:
        reason = _why_not(file)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
    if reason is not None:
        raise ArgumentError(f"{option} {str(file)!r} {reason}. Name a file, such as {example}.")


def _why_not(file: Path) -> str | None:
    if file.is_dir():
        return "is a folder"
    if not file.absolute().parent.is_dir():
        return "is in no folder that there is"
    if not file.exists():
        _try(file.absolute().parent)
    elif file.is_file():
        file.open("ab").close()
    return None


def check_folder(option: str, folder: Path) -> None:
    """Refuse a folder that could not be made, or not be written in; it is not made.

    Raises:
        ArgumentError: it or what it would be in is no folder, or this user cannot write there.
    """
    try:
        _try(_nearest(folder.absolute()))
    except OSError as error:
        verb = "written in" if os.path.isdir(folder) else "made"
        raise ArgumentError(f"{option} {folder} cannot be {verb}: {error.strerror}. Name another folder.") from error


def write_file(file: Path, text: str) -> None:
    """Write a text in UTF-8.

    Raises:
        LoquentError: what `check_file` could not foresee, such as a full disk.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LoquentError(f"could not write {file}: {error.strerror}") from error


def _nearest(folder: Path) -> Path:
    """The folder, or the one that is there and that it would be made in."""
    for place in (folder, *folder.parents):
        try:
            mode = os.stat(place).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
        return place
    return folder


def _try(folder: Path) -> None:
    # Where a disk is read-only or full, permissions do not tell.
    with tempfile.TemporaryFile(dir=folder):
        pass
