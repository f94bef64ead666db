"""Files to documents: every form, folders, and what is said of files that are wrong."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loquent.errors import ArgumentError, DataError
from loquent.training.data import read_texts

WRITERS: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def texts_of(path: Path, content: str | bytes, **options: Any) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_texts([path], **options))


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_forms_and_compressions(tmp_path: Path, suffix: str) -> None:
    text, lines = tmp_path / f"a.txt{suffix}", tmp_path / f"a.jsonl{suffix}"
    with WRITERS[suffix](text, "wt", encoding="utf-8", newline="") as file:
        file.write("one é\r\n\r\n  two\n<|endoftext|>\n\n<|endoftext|>\r\nthree\n")
    with WRITERS[suffix](lines, "wt", encoding="utf-8") as file:
        file.write('{"text": "a\\n"}\n\n{"text": "b <|endoftext|>", "n": 1}\n{"text": " "}\n')
    assert list(read_texts([text, lines, text])) == [
        *("one é\n\n  two", "three", "a\n", "b <|endoftext|>", "one é\n\n  two", "three")
    ]


def test_a_text_file_is_a_document_unless_separators_part_it(tmp_path: Path) -> None:
    content = "\n\nOne.\n\nTwo. <|endoftext|>\n***\n Three\n\n"
    assert texts_of(tmp_path / "a.txt", content) == ["One.\n\nTwo. <|endoftext|>\n***\n Three"]
    assert texts_of(tmp_path / "a.txt", content, separator="***") == ["One.\n\nTwo. <|endoftext|>", " Three"]
    assert texts_of(tmp_path / "a.txt", b"\xef\xbb\xbfmarked") == ["marked"]
    assert texts_of(tmp_path / "a.txt", "next\u2028line\x0cpage\x85 end\rreturn") == [
        "next\u2028line\x0cpage\x85 end\rreturn"
    ]


def test_escaped_characters(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude42 \\\\ud83d"}') == ["🙂 \\ud83d"]


def test_another_field(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "a.json", '{"text": 1, "story": "x"}\n', field="story") == ["x"]


def test_folders_stand_for_what_is_below_them_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.jsonl", "a/y.txt.gz", "c.md", "d.csv", "e.gz", ".hidden/f.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"text": name}) if name.endswith("jsonl") else name
        path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    assert list(read_texts([tmp_path])) == ["a/b/c.jsonl", "a/y.txt.gz", "a/z.txt", "b.txt"]
    assert list(read_texts(str(tmp_path / "b.txt"))) == ["b.txt"]


def test_documents_come_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"first\n<|endoftext|>\n" + b"x" * (1 << 20) + b"\n\xff\n")
    texts = read_texts([path])
    assert next(texts) == "first"
    with pytest.raises(DataError, match="line 4 is not UTF-8"):
        next(texts)


def test_a_file_is_never_held_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.xz"
    with lzma.open(path, "wt", preset=0) as file:
        for _ in range(100):
            file.write("some words of a story\n" * 1000 + "<|endoftext|>\n")
    tracemalloc.start()
    assert sum(len(text) for text in read_texts([path])) == 100 * 21_999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ok\nno\xe9\n", r"a\.txt, line 2 is not UTF-8: byte 0xe9 at its place 3\. Convert the file"),
        ("a.txt", b"", r"a\.txt has no text in it\. Leave it out"),
        ("a.txt", b" \n<|endoftext|>\n\n", r"a\.txt has no text in it"),
        ("a.jsonl", b"\n", r"a\.jsonl has no text in it"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "a"\n', r"a\.jsonl, line 2: .*Each line must be one JSON object"),
        ("a.json", b'[\n{"text": "a"}\n]', r"a\.json, line 1: .*must be written again, an element a line"),
        ("a.json", b'["a"]', r"a\.json, line 1 holds a JSON list, and must hold an object"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl, line 1: .*Each line must be one JSON object"),
        (
            "a.jsonl",
            b'{"text": "\\ud83d"}',
            r"a\.jsonl, line 1 has half of a character, '\\ud83d'",
        ),
        ("a.jsonl", b'{"body": "a"}', r"line 1 has no field 'text', but \['body'\]\. Name the field"),
        ("a.jsonl", b'{"text": ["a"]}', r"line 1: the field 'text' holds \['a'\], and must hold a text"),
        ("a.jsonl", b'{"text": null}', r"line 1: the field 'text' holds None, and must hold a text"),
        ("a.txt.gz", b"plain", r"a\.txt\.gz cannot be read behind line 0: .*compressed as its name says"),
        ("a.txt.xz", b"plain", r"a\.txt\.xz cannot be read behind line 0: .*compressed as its name says"),
        ("a.txt.bz2", b"plain", r"a\.txt\.bz2 cannot be read behind line 0: .*compressed as its name says"),
        ("a.csv", b"a", r"a\.csv must end with one of \.txt, \.jsonl, \.json \(also with \.gz, \.xz, \.bz2 behind"),
        ("a.gz", b"a", r"a\.gz must end with one of"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        texts_of(tmp_path / name, content)


@pytest.mark.parametrize("suffix", PACK)
def test_files_that_were_cut_off(tmp_path: Path, suffix: str) -> None:
    packed = PACK[suffix]("".join(f"line {n}\n" for n in range(9999)).encode())
    with pytest.raises(DataError, match=r"cannot be read behind line \d+: .*Is it complete"):
        texts_of(tmp_path / f"a.txt{suffix}", packed[: len(packed) // 2])


def test_paths_are_looked_at_when_they_are_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.txt is neither a file nor a folder. Check the name; patterns"):
        read_texts([tmp_path / "no.txt"])
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"is a folder without files \.txt, \.jsonl"):
        read_texts([tmp_path])
    with pytest.raises(DataError, match="No files were given"):
        read_texts([])
    for separator in ("", " ", "a\nb"):
        with pytest.raises(ArgumentError, match="must be one line that is not blank"):
            read_texts([tmp_path], separator=separator)
