"""Text files as documents: plain text between lines of <|endoftext|>, or a JSON object a line; xz, gzip or neither."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from loquent.errors import ArgumentError

BORDER = "<|endoftext|>"
"""A line that stands between two documents."""

_OPENERS: dict[str, Callable[..., IO[str]]] = {".xz": lzma.open, ".gz": gzip.open}


def read_documents(path: str | os.PathLike[str], field: str = "text") -> list[str]:
    """The documents of a file: with `.jsonl` in its name the texts that its objects have as `field`.

    Raises:
        ArgumentError: the file cannot be read, or is not what its name says.
    """
    path = Path(path)
    opener = _OPENERS.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            if ".jsonl" in path.suffixes:
                return list(_objects(path, file, field))
            return split_documents(file.read())
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read as text: {error}. Name a text file, or one with .jsonl.") from error


def split_documents(text: str) -> list[str]:
    """The documents of a text, without those that are empty."""
    documents: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if line.strip() == BORDER:
            documents.append([])
        else:
            documents[-1].append(line)
    if len(documents) == 1:
        return [text] if text else []
    return [document for document in ("".join(lines).removesuffix("\n") for lines in documents) if document]


def _objects(path: Path, lines: IO[str], field: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read: Any = json.loads(line)
        except ValueError as error:
            raise ArgumentError(f"{path}, line {number}, is no JSON: {error}. Write one object a line.") from error
        if not isinstance(read, dict) or not isinstance(read.get(field), str):
            raise ArgumentError(f"{path}, line {number}, has no text {field!r}. Write objects with one.")
        yield read[field]
