"""Files to texts, one document after another; it tokenizes nothing and holds no more than a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from loquent.errors import ArgumentError, DataError
from loquent.training.data.files import JSON_LINES, TEXT, data_files, is_json, lines_of, objects_of

END_OF_TEXT = "<|endoftext|>"


def read_texts(paths: Iterable[str | Path], *, separator: str = END_OF_TEXT, field: str = "text") -> Iterator[str]:
    """The documents of text files and of files of JSON lines, in the order of the paths.

    A `.txt` is a document, or several, where a line that is the separator stands between each two; line ends around a
    document are no part of it. In a `.jsonl` or `.json` each line is an object with a document in a field. All may be
    compressed (`.gz`, `.xz`, `.bz2`). Folders stand for what is below them.

    Args:
        paths: files and folders; looked at when the function is called, read as the documents are taken.
        separator: the line between two documents of a `.txt`.
        field: of the objects of JSON lines.

    Raises:
        ArgumentError: the separator is empty or has several lines.
        DataError: a file is missing, empty, damaged, or not what its name says; names the line.
    """
    if not separator.strip() or "\n" in separator:
        raise ArgumentError(f"separator={separator!r} must be one line that is not blank, such as {END_OF_TEXT}.")
    files = data_files(paths, (*TEXT, *JSON_LINES))
    return _documents(files, separator, field)


def _documents(files: list[Path], separator: str, field: str) -> Iterator[str]:
    for path in files:
        empty = True
        for document in _fields(path, field) if is_json(path) else _separated(path, separator):
            empty = False
            yield document
        if empty:
            raise DataError(f"{path} has no text in it. Leave it out.")


def _separated(path: Path, separator: str) -> Iterator[str]:
    document: list[str] = []
    for line in lines_of(path):
        if line.text.strip() != separator:
            document.append(line.text)
            continue
        yield from _not_blank(document)
        document = []
    yield from _not_blank(document)


def _not_blank(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield text


def _fields(path: Path, field: str) -> Iterator[str]:
    for found, line in objects_of(path):
        if field not in found:
            raise DataError(
                f"{line.place} has no field {field!r}, but {sorted(found)}. Name the field that holds the text."
            )
        text = found[field]
        if not isinstance(text, str):
            raise DataError(f"{line.place}: the field {field!r} holds {text!r}, and must hold a text.")
        if text.strip():
            yield text
