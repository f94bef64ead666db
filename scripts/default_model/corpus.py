"""The text that the default model learns from: which books, how they are cleaned, and what is held out.

Books are whole here: a held-out book shares no paragraph with those trained on.
"""

from __future__ import annotations

import lzma
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A book is kept if at least this share of its words are among the commonest words of all books.
_COMMONEST, _SHARE = 2000, 0.86
# Every such kept book, in the order of the file, is held out.
_HELD_OUT_EVERY, _FIRST_HELD_OUT = 40, 20

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_NUMBERED = re.compile(r"(chapter|story|part|book|adventure|[ivxlc]+\b|\d+\b)", re.IGNORECASE)
_ODD = re.compile(r"[\[\]{}|\\^~<=>#*@+/]|\d{3}.*\d{3}")
_OPENING = re.compile(r"(?<![\w.,!?;:])'(?=\w|--)(?!(?:tis|twas|twill|twere|em|til)\b)", re.IGNORECASE)
_CLOSING = re.compile(r"(?<=[.,!?;:-])'(?!\w)")


@dataclass(frozen=True)
class Corpus:
    """Documents (a tale or a chapter each), a line per paragraph; those learned from, and those kept back."""

    train: list[str]
    held_out: list[str]


def read_corpus(path: Path) -> Corpus:
    """The corpus in a file of books, separated by a line `<|endoftext|>`, with blank lines between paragraphs."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        books = _simple_books(file.read().split("<|endoftext|>"))
    held_out = books[_FIRST_HELD_OUT::_HELD_OUT_EVERY]
    train = [book for book in books if book not in held_out]
    seen: set[str] = set()
    kept_back = [document for book in held_out for document in _documents(book, seen)]
    return Corpus([document for book in train for document in _documents(book, seen)], kept_back)


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def _simple_books(books: list[str]) -> list[str]:
    """The books written in common words, which a small model can learn to write."""
    counts = [Counter(words(book)) for book in books]
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    common = [word for word, _ in total.most_common(_COMMONEST)]
    return [book for book, count in zip(books, counts) if sum(count[word] for word in common) >= _SHARE * count.total()]


def _documents(book: str, seen: set[str]) -> Iterator[str]:
    """The tales or chapters of a book: what stands between headings, without verse, tables and what was `seen`."""
    paragraphs = [paragraph.strip() for paragraph in book.split("\n\n") if paragraph.strip()]
    single = sum(p.startswith("'") for p in paragraphs) > sum(p.startswith('"') for p in paragraphs)
    lines: list[str] = []
    for paragraph in paragraphs:
        if _is_heading(paragraph):
            if len(lines) > 1:
                yield "\n".join(lines)
            lines = []
        elif "\n" not in paragraph and not _ODD.search(paragraph):
            line = _clean(paragraph, single)
            if len(line) < 60 or line not in seen:
                lines.append(line)
            seen.add(line)
    if len(lines) > 1:
        yield "\n".join(lines)


def _is_heading(paragraph: str) -> bool:
    if len(paragraph) > 80 or paragraph[0] in "\"'":
        return False
    unended = paragraph[-1] not in ".,;:!?-\"')"
    return unended or paragraph.isupper() or (_NUMBERED.match(paragraph) is not None and len(paragraph) < 40)


def _clean(paragraph: str, single: bool) -> str:
    """One line with double quotes around speech, whichever the book uses."""
    line = " ".join(paragraph.split()).replace(". . .", "...")
    if single:
        line = _CLOSING.sub('"', _OPENING.sub('"', line.replace('"', "'")))
    return line
