"""Texts of tokens: nothing in them acts on what shows them, and nothing of them is lost from sight."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

import loquent
from loquent.visual import TokenTexts
from loquent.visual.terminal.canvas import Canvas
from loquent.visual.texts import isolated, printable
from visual.traces import Tokenizer

ANYTHING = st.text(st.characters(codec=None), max_size=12)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" cat", "␣cat"),
        ("  ", "␣␣"),
        ("a b ", "a b␣"),
        ("\n\t", "⏎⇥"),
        ("\x1b[31m", "␛[31m"),
        ("\x9b1A", "‹U+009B›1A"),
        ("\u202etxt", "‹U+202E›txt"),
        ("a\u200bb\xa0", "a‹U+200B›b‹U+00A0›"),
        ("\u0301", "◌\u0301"),
        ("漢字", "漢字"),
        ("", "‹0›"),
        ("[bold]", "[bold]"),
    ],
)
def test_what_could_not_be_seen_has_a_sign(text: str, shown: str) -> None:
    assert TokenTexts(Tokenizer([text])).token(0) == shown


@given(ANYTHING)
def test_no_text_acts_on_a_terminal(text: str) -> None:
    for shown in (TokenTexts(Tokenizer([text])).token(0), printable(text)):
        assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_tokens_of_a_real_vocabulary(shared_data: Path) -> None:
    tokenizer = loquent.AutoTokenizer.from_pretrained(str(shared_data / "tokenizers/gpt2"))
    texts = TokenTexts(tokenizer)
    ids = tokenizer("a 漢\n")["input_ids"]
    assert "".join(map(texts.token, ids[:1])) == "a"
    assert [texts.token(token) for token in ids[1:-1]] == ["‹20 E6›", "‹BC›", "‹A2›"]  # parts of one character
    assert texts.text(ids) == "a 漢"
    assert texts.run(ids) == "a 漢⏎"
    assert (texts.flowing(ids[-1]), texts.breaks(ids[-1]), texts.breaks(ids[0])) == ("⏎", True, False)
    assert texts.token(10**6) == "‹1000000›"


def test_writing_from_right_to_left_stays_in_its_place() -> None:
    assert isolated("cat") == "cat"
    assert isolated("שלום") == "\u2068שלום\u2069"
    assert cell_len(isolated("שלום")) == 4


@given(st.lists(ANYTHING, min_size=1, max_size=6), st.integers(1, 30))
def test_the_end_of_a_text_fits(words: list[str], cells: int) -> None:
    canvas = Canvas(TokenTexts(Tokenizer(words)))
    assert cell_len(canvas.tail(tuple(range(len(words))), cells).plain) <= max(cells, 2)
