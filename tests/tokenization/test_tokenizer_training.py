"""`train_tokenizer`: merges follow the rule, every text comes back, transformers reads the folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.errors import ArgumentError, TemplateError
from loquent.tokenization import AutoTokenizer, train_tokenizer
from tokenization.conftest import TEXT

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|user|>", "<|end|>"]
TEMPLATE = "{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
STRANGE = [
    "",
    "  two  spaces \n\n and\ttabs ",
    "café \U0001f600 Привет 你好 ́a",
    "a <|user|>b<|end|> c<|endoftext|>",
    "12 345.6 ²½ x1y22",
    "\x00\x7f﻿�",
]


@pytest.fixture(scope="module")
def made() -> Any:
    return train_tokenizer(TEXT, 280, special_tokens=SPECIAL, pad_token="<|pad|>", chat_template=TEMPLATE)


def test_ids_are_those_of_special_tokens_then_bytes_then_merges(made: Any) -> None:
    assert len(made) == made.vocab_size == 280
    assert made.convert_tokens_to_ids(SPECIAL) == [0, 1, 2, 3]
    assert (made.bos_token_id, made.eos_token_id, made.pad_token_id, made.unk_token_id) == (0, 0, 1, None)
    assert sorted(made.all_special_ids) == [0, 1, 2, 3]
    assert all(len(made.convert_ids_to_tokens(index)) == 1 for index in range(4, 260))
    assert all(len(made.convert_ids_to_tokens(index)) > 1 for index in range(260, 280))


def test_merges_are_the_commonest_pairs_of_a_plain_implementation() -> None:
    """Words apart at spaces, no ties among the first merges."""
    text = "aacc " * 2 + "aab " * 5 + "acc " * 3 + "aa " + "cc " * 4
    words = Counter(tuple(f" {word}") for word in text.split())
    expected = []
    for _ in range(6):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        (pair, most), (_, second) = pairs.most_common(2)
        assert most > second
        expected.append("".join(pair).replace(" ", "Ġ"))
        words = Counter({tuple(_merged(word, pair)): times for word, times in words.items()})
    made = train_tokenizer([f" {text.strip()}"], 257 + 6)
    assert made.convert_ids_to_tokens(range(257, 263)) == expected


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> Iterator[str]:
    place = 0
    while place < len(word):
        step = 2 if word[place : place + 2] == pair else 1
        yield "".join(word[place : place + step])
        place += step


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(made: Any, text: str) -> None:
    assert made.decode(made(text)["input_ids"]) == text


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("0123456789 ٣²½五")))
def test_every_text_comes_back_with_digits_apart(text: str) -> None:
    assert DIGITS.decode(DIGITS(text)["input_ids"]) == text


DIGITS = train_tokenizer([*TEXT, "1234 1234 1234 1234"], 320, split_digits=True)


def test_digits_are_tokens_of_their_own() -> None:
    assert DIGITS.tokenize("1234 12")[:4] == ["1", "2", "3", "4"]
    assert not [token for token in DIGITS.get_vocab() if len(token) > 1 and any(map(str.isdigit, token))]


def test_a_first_word_is_as_others_are_with_a_space_before_it() -> None:
    made = train_tokenizer(TEXT, 320, add_prefix_space=True)
    assert made("the cat")["input_ids"] == made(" the cat")["input_ids"]
    assert made.decode(made("the cat")["input_ids"]) == " the cat"


@pytest.mark.parametrize(
    "options", [{}, {"split_digits": True}, {"add_prefix_space": True}, {"add_bos_token": True}], ids=str
)
def test_transformers_reads_the_folder_and_agrees(tmp_path: Path, options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    made = train_tokenizer(
        TEXT,
        330,
        special_tokens=SPECIAL,
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        chat_template=TEMPLATE,
        model_max_length=512,
        **options,
    )
    names = {Path(path).name for path in made.save_pretrained(tmp_path)}
    assert names == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": "user", "content": "the cat 12"}]
    for text in [*TEXT, *STRANGE]:
        ids = made(text)["input_ids"]
        assert (ids[:1] == [0]) == bool(options.get("add_bos_token") or text.startswith("<|endoftext|>"))
        assert ours(text)["input_ids"] == ids == theirs(text)["input_ids"]
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    for name in ("special_tokens_map", "all_special_ids", "model_max_length", "model_input_names", "chat_template"):
        assert getattr(ours, name) == getattr(made, name), name
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert ours.model_max_length == theirs.model_max_length == 512
    assert ours.model_input_names == theirs.model_input_names == ["input_ids", "attention_mask"]
    assert ours.apply_chat_template(talk) == theirs.apply_chat_template(talk)


def test_the_same_texts_give_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_tokenizer(iter(TEXT), 400, special_tokens=SPECIAL).save_pretrained(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_pairs_that_are_rarer_than_asked_for_become_no_tokens() -> None:
    made = train_tokenizer(["ab ab ab cd cd"], 1000, min_frequency=3, bos_token=None, eos_token=None)
    assert made.convert_ids_to_tokens(range(256, len(made))) == ["ab", "Ġab"][: len(made) - 256]
    assert json.loads(made.backend_tokenizer.to_str())["model"]["merges"][0] in (["a", "b"], "a b")


def test_what_was_read_is_told() -> None:
    told: list[tuple[int, int]] = []
    train_tokenizer(["ab", "", "cde"], 300, on_read=lambda *counts: told.append(counts))
    assert told == [(1, 2), (2, 2), (3, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 259}, "vocab_size=259 has no room for 256 bytes and 4 special tokens. Pass at least 260"),
        ({"special_tokens": ["a", "b", "a"]}, "special_tokens names 'a' twice"),
        ({"special_tokens": [""]}, "'' is no token"),
        ({"special_tokens": "<pad>"}, "must be a list of tokens"),
        ({"min_frequency": 0}, "min_frequency=0 must be at least 1"),
        ({"model_max_length": 0}, "model_max_length=0 must be at least 1"),
        ({"split_digits": True, "add_prefix_space": True}, "Leave one of them out"),
        ({"add_bos_token": True, "bos_token": None}, "bos_token=None is none"),
        ({"texts": []}, "0 documents without a character"),
        ({"texts": ["", ""]}, "2 documents without a character"),
        ({"texts": "abc"}, "not one text"),
        ({"texts": [b"abc"]}, "of type bytes"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        train_tokenizer(**{"texts": TEXT, "vocab_size": 300, "special_tokens": SPECIAL, **options})
    assert message in str(refused.value)


def test_a_template_is_checked_before_any_text_is_read() -> None:
    def texts() -> Iterator[str]:
        raise AssertionError
        yield ""

    with pytest.raises(TemplateError, match="not valid, line 1"):
        train_tokenizer(texts(), 300, chat_template="{% for %}")
