"""Files with a JSON object in each line, which may have been left in the middle of one."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with their lines' numbers; one that ends in .gz is unpacked.

    Raises:
        ArgumentError: the file cannot be read, or a line is no JSON object.
    """
    try:
        data = Path(path).read_bytes()
        text = (gzip.decompress(data) if str(path).endswith(".gz") else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}. Name a file with a JSON object in each line.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ArgumentError(f"{path}, line {number}, is no JSON: {error}.") from error
        if not isinstance(found, dict):
            raise ArgumentError(f"{path}, line {number}, is no JSON object.")
        yield number, found


def drop_broken_end(path: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line, at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
