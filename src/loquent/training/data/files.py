"""Lines of text files, compressed or not, with their numbers; what the lines mean is for others."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from loquent.errors import DataError

_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
TEXT = (".txt",)
JSON_LINES = (".jsonl", ".json")


@dataclass(frozen=True)
class Line:
    """A line without its end, and where it is."""

    text: str
    path: Path
    number: int

    @property
    def place(self) -> str:
        """The file and the line, as a message names them."""
        return f"{self.path}, line {self.number}"


def data_files(paths: Iterable[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """The files themselves, and for a folder all files below it with these suffixes, hidden ones aside, by name.

    Args:
        paths: files and folders.
        suffixes: such as ".txt"; also found with ".gz", ".xz" or ".bz2" behind.

    Raises:
        DataError: a path does not exist, a file has another suffix, or a folder has no such file.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if _kind(file) in suffixes and _is_shown(file, path))
            if not inside:
                raise DataError(f"{path} is a folder without files {_listed(suffixes)}.")
            found += inside
        elif not path.is_file():
            raise DataError(
                f"{path} is neither a file nor a folder. Check the name; patterns (*.txt) are for the shell."
            )
        elif _kind(path) not in suffixes:
            raise DataError(f"{path} must end with one of {_listed(suffixes)}, by which its form is known. Rename it.")
        else:
            found.append(path)
    if not found:
        raise DataError("No files were given.")
    return found


def is_json(path: Path) -> bool:
    """Whether each line is to be an object of JSON."""
    return _kind(path) in JSON_LINES


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a file in UTF-8, one after another; both \\n and \\r\\n end a line.

    Raises:
        DataError: the file cannot be read or decompressed, or a line is not UTF-8.
    """
    number = 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                yield Line(_decoded(raw, path, number), path, number)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read behind line {number}: {error or type(error).__name__}. Is it complete, and "
            "compressed as its name says?"
        ) from error


def objects_of(path: Path) -> Iterator[tuple[dict[str, Any], Line]]:
    """The objects of a file of JSON lines, and the lines that they are on; blank lines are passed over.

    Raises:
        DataError: a line is no object.
    """
    for line in lines_of(path):
        if not line.text.strip():
            continue
        try:
            found = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{line.place}: {error}. Each line must be one JSON object; a file that is one JSON array must be "
                "written again, an element a line."
            ) from error
        if not isinstance(found, dict):
            raise DataError(f"{line.place} holds a JSON {type(found).__name__}, and must hold an object: {{...}}.")
        _check_characters(found, line)
        yield found, line


def _check_characters(found: dict[str, Any], line: Line) -> None:
    """JSON can name halves of characters, which no tokenizer takes."""
    if "\\ud" in line.text.lower():
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{line.place} has half of a character, {error.object[error.start : error.end]!a}. Write the file "
                "again from its source, or take the escape out."
            ) from error


def _is_shown(file: Path, folder: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _opened(path: Path) -> IO[bytes]:
    opened: IO[bytes] = _OPENERS.get(path.suffix, open)(path, "rb")
    return opened


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        # A byte order mark is no part of the text.
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not UTF-8: byte {raw[error.start]:#04x} at its place {error.start + 1}. Convert "
            "the file, for example with iconv."
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _kind(path: Path) -> str:
    """The suffix that tells the form, without that of the compression."""
    return Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix


def _listed(suffixes: Sequence[str]) -> str:
    return f"{', '.join(suffixes)} (also with {', '.join(_OPENERS)} behind)"
