"""Prompt cache files: what is written comes back, and nothing else is taken."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loquent.cache import PageGroup
from loquent.engine.prompt_file import Origin, SavedPrompt, key_digest, page_range, read_prompt, write_prompt
from loquent.errors import ArgumentError, CheckpointError

VOCABULARY = 50
GROUPS = (PageGroup(40), PageGroup(24, window=5), PageGroup(16, residual=4))
ORIGIN = Origin(model="a1", store="test 1", page_size=4, groups=GROUPS)


def saved(length: int = 12, groups: tuple[PageGroup, ...] = GROUPS, seed: int = 0) -> SavedPrompt:
    generator = np.random.default_rng(seed)
    pages = tuple(
        generator.integers(0, 256, (len(range(*page_range(group, length, 4))), group.bytes_per_page), np.uint8)
        for group in groups
    )
    return SavedPrompt(generator.integers(0, VOCABULARY, length), pages, "key")


Errors = type[Exception] | tuple[type[Exception], ...]


def refused(path: Path, error: Errors, reason: str, origin: Origin = ORIGIN) -> None:
    before = path.read_bytes()
    with pytest.raises(error, match=reason):
        read_prompt(path, origin, VOCABULARY)
    assert path.read_bytes() == before


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], data: bytes | None = None) -> None:
    """The same file with another header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if data is None else data))


@pytest.mark.parametrize("length", [4, 8, 12, 40])
def test_what_is_written_comes_back(tmp_path: Path, length: int) -> None:
    path, written = tmp_path / "cache", saved(length)
    write_prompt(path, ORIGIN, written)
    read = read_prompt(path, ORIGIN, VOCABULARY)
    assert read.tokens.tolist() == written.tokens.tolist()
    assert read.key == "key"
    assert [pages.tolist() for pages in read.pages] == [pages.tolist() for pages in written.pages]
    assert [path.name] == os.listdir(tmp_path)


def test_only_what_follows_sees_is_kept() -> None:
    assert [page_range(group, 40, 4) for group in GROUPS] == [(0, 10), (9, 10), (0, 9)]
    assert [page_range(group, 4, 4) for group in GROUPS] == [(0, 1), (0, 1), (0, 0)]


@pytest.mark.parametrize("groups", [GROUPS[:1], GROUPS[:2], GROUPS])
def test_a_beginning_has_the_pages_of_its_length(groups: tuple[PageGroup, ...]) -> None:
    """Of a shorter prompt, where windows and codes leave what it sees."""
    origin, whole = replace(ORIGIN, groups=groups), saved(40, groups)
    for length in range(41):
        other = np.append(whole.tokens[:length], [VOCABULARY] * 3)
        found = whole.beginning(other, origin)
        if len(groups) > 1 and length < 40:
            assert found is None
            continue
        assert (0 if found is None else len(found.tokens)) == length // 4 * 4
        if found is not None:
            for group, pages, all_pages in zip(groups, found.pages, whole.pages):
                first, stop = page_range(group, len(found.tokens), 4)
                here = page_range(group, 40, 4)[0]
                assert pages.tolist() == all_pages[first - here : stop - here].tolist()


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"model": "b2"}, "another model"),
        ({"store": "test 2"}, "another precision or kind"),
        ({"page_size": 2}, "another size"),
        ({"groups": GROUPS[:2]}, "another layout"),
        ({"groups": (GROUPS[0], replace(GROUPS[1], window=6), GROUPS[2])}, "another layout"),
    ],
)
def test_another_origin_is_refused(tmp_path: Path, other: dict[str, Any], reason: str) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, saved())
    refused(path, ArgumentError, rf"prompt_cache='.*cache' .*{reason}.*Name another file", replace(ORIGIN, **other))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_text("a story")
    refused(path, CheckpointError, "truncated.*Delete it")
    path.write_bytes(b"")
    refused(path, CheckpointError, "Delete it")
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    refused(path, CheckpointError, "safetensors file of something else")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_prompt(tmp_path, ORIGIN, VOCABULARY)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(struct.pack("<Q", 1 << 30))
    os.truncate(path, 1 << 31)
    with pytest.raises(CheckpointError, match="1,073,741,824 bytes, more than the 1,048,576 that are allowed"):
        read_prompt(path, ORIGIN, VOCABULARY)


def _tensor(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header["__metadata__"].update(version="2"), "version '2'"),
        (lambda header: header["__metadata__"].update(key="other"), "not what was written"),
        (lambda header: header["__metadata__"].pop("digest"), "not what was written"),
        (lambda header: header["__metadata__"].update(more="x"), "not what was written"),
        (lambda header: header.update({"pages.9": header.pop("pages.0")}), "not the pages of 12 tokens"),
        (lambda header: header.update({"t": header.pop("tokens")}), "no tokens"),
        (_tensor("tokens", dtype="F64"), "no tokens"),
        (_tensor("tokens", dtype="U8", shape=[96]), "no tokens"),
        (_tensor("tokens", shape=[3, 4]), "no tokens"),
        (_tensor("tokens", shape=[-12]), "not sizes"),
        (_tensor("tokens", shape=[2**61 + 12]), "not those of I64"),
        (_tensor("pages.0", shape=[120]), "not the pages of 12 tokens"),
        (_tensor("pages.0", shape=[6, 20]), "not the pages of 12 tokens"),
        (_tensor("pages.0", shape=[3, 2**62]), "not those of U8"),
        (_tensor("pages.0", data_offsets=[0, 2**63]), "not those of U8"),
    ],
)
def test_a_tampered_header_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, saved())
    rewrite(path, change)
    refused(path, CheckpointError, reason)


@pytest.mark.parametrize("tokens", [[-1] * 12, [VOCABULARY] * 12, [2**63 - 1] * 12])
def test_tokens_that_there_are_not_are_refused(tmp_path: Path, tokens: list[int]) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, replace(saved(), tokens=np.array(tokens)))
    refused(path, CheckpointError, "not the model's")


@pytest.mark.parametrize("length", [0, 3, 11])
def test_tokens_that_are_no_whole_pages_are_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, replace(saved(), tokens=np.zeros(length, np.int64)))
    refused(path, CheckpointError, "not whole pages of 4")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_never_gives_other_pages(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, saved())
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "at") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), "at")] ^= data.draw(st.integers(1, 255), "by")
    path.write_bytes(content)
    refused(path, (CheckpointError, ArgumentError), "Delete it|Name another file")


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"prompt_cache='.*none/cache' cannot be written \(No such file"):
        write_prompt(tmp_path / "none" / "cache", ORIGIN, saved())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    write_prompt(path, ORIGIN, saved())
    before = path.read_bytes()
    broken = replace(saved(), tokens=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write_prompt(path, ORIGIN, broken)
    assert path.read_bytes() == before


def test_digests_of_keys_do_not_depend_on_the_order_of_sets() -> None:
    texts = [f"text {number}" for number in range(40)]
    assert key_digest(frozenset(texts)) == key_digest(frozenset(reversed(texts)))
    assert key_digest(frozenset(texts)) != key_digest(frozenset(texts[1:]))
    assert key_digest(frozenset({frozenset({"a", "b"})})) == key_digest(frozenset({frozenset({"b", "a"})}))
    assert key_digest(None) != key_digest(frozenset())
