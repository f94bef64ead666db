"""The books that the default model learns from: which are chosen, how they are cleaned, and which are held out.

Books are whole here, a held-out one shares no paragraph with those trained on; what becomes of the text is not known.
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import compress
from pathlib import Path

from default_model.split import HELD_OUT_SHARE, Split, new_texts, words

# A book is kept if at least this share of its words are among the commonest words of all books.
_COMMONEST, _SHARE = 2000, 0.84
# What is shorter than this, in characters, may stand in several books.
_LONG = 60

_NUMBERED = re.compile(r"(chapter|story|part|book|adventure|[ivxlc]+\b|\d+\b)", re.IGNORECASE)
_ODD = re.compile(r"[\[\]{}|\\^~<=>#*@+/_`]|\d{3}.*\d{3}")
_OPENING = re.compile(r"(?<![\w.,!?;:])'(?=\w|--)(?!(?:tis|twas|twill|twere|em|til)\b)", re.IGNORECASE)
_CLOSING = re.compile(r"(?<=[.,!?;:-])'(?!\w)")
_LETTERS = re.compile(r"[^a-z]+")


def read_stories(path: Path) -> Split[str]:
    """The tales and chapters of a file of books, a line per paragraph.

    Args:
        path: books separated by a line `<|endoftext|>`, with blank lines between their paragraphs; compressed by xz.
    """
    with lzma.open(path, "rt", encoding="utf-8") as file:
        books = _simple_books(file.read().split("<|endoftext|>"))
    held_out = _held_out(books)
    seen: set[str] = set()
    # Those trained on come first: what a held-out book has in common with them is left out of the held-out one.
    train = [document for book in books if book not in held_out for document in _documents(book, seen)]
    others = [document for book in books if book in held_out for document in _documents(book, seen)]
    # Tales that are in several books, with their paragraphs cut elsewhere.
    return Split(train, list(compress(others, new_texts(train, others))))


def _simple_books(books: Iterable[str]) -> list[str]:
    """The books written in common words, which a small model can learn to write."""
    counts = {book: Counter(words(book)) for book in books}
    total: Counter[str] = Counter()
    for count in counts.values():
        total.update(count)
    common = [word for word, _ in total.most_common(_COMMONEST)]
    return [book for book, count in counts.items() if sum(count[word] for word in common) >= _SHARE * count.total()]


def _held_out(books: list[str]) -> set[str]:
    """Books in an order that has nothing to do with what they are, each taken that still fits into the share."""
    room = HELD_OUT_SHARE * sum(map(len, books))
    taken: set[str] = set()
    for book in sorted(books, key=lambda book: hashlib.sha256(book.encode()).digest()):
        if len(book) <= room:
            taken.add(book)
            room -= len(book)
    return taken


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
            # Editions differ in their commas and quotes.
            key = _LETTERS.sub("", line.lower())
            if len(line) < _LONG or key not in seen:
                lines.append(line)
            seen.add(key)
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
