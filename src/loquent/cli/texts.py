"""The texts of files that a tokenizer learns from, one document at a time; what is a token is not known here."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from loquent.errors import ArgumentError

SEPARATOR = "<|endoftext|>"
_OPENERS: Mapping[str, Any] = {".xz": lzma.open, ".gz": gzip.open}


def read_texts(text: Sequence[Path], dialogues: Sequence[Path]) -> Iterator[str]:
    """Every document of the text files, then every turn of the conversations.

    Args:
        text: .txt files with documents separated by a line `<|endoftext|>`, .jsonl files of objects with "text".
        dialogues: .jsonl files of objects with "turns" (texts) or "messages" (objects with "content").

    Raises:
        ArgumentError: no file is given, one cannot be read, or holds something else. Missing files are found at once.
    """
    if not [*text, *dialogues]:
        raise ArgumentError("There is nothing to read. Pass files: --text, --dialogues, or both.")
    missing = next((path for path in [*text, *dialogues] if not path.is_file()), None)
    if missing is not None:
        raise ArgumentError(f"{missing} is not a file.")
    return _read(text, dialogues)


def _read(text: Sequence[Path], dialogues: Sequence[Path]) -> Iterator[str]:
    for path in text:
        yield from _rows(path, _text) if ".jsonl" in path.suffixes else _documents(path)
    for path in dialogues:
        yield from _rows(path, _turns)


def _documents(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for line in _lines(path):
        if line.rstrip("\r\n") == SEPARATOR:
            yield "".join(lines)
            lines = []
        else:
            lines.append(line)
    yield "".join(lines)


def _rows(path: Path, texts_of: Any) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            texts = texts_of(json.loads(line)) if line.strip() else []
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            wanted = '{"text": ...}' if texts_of is _text else '{"turns": [...]} or {"messages": [...]}'
            raise ArgumentError(f"{path}, line {number} is not a JSON object such as {wanted}: {error!r}.") from error
        yield from texts


def _text(row: Any) -> list[str]:
    return [_checked(row["text"])]


def _turns(row: Any) -> list[str]:
    turns = row["turns"] if "turns" in row else [message["content"] for message in row["messages"]]
    return [_checked(turn) for turn in turns]


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a text")
    return text


def _lines(path: Path) -> Iterator[str]:
    opener: Any = _OPENERS.get(path.suffix, open)
    try:
        file: IO[str]
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            yield from file
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text: {error}.") from error
