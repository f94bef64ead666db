"""Pages: what they say of hand-made traces, that they need nothing else, and that no text becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.decoding.trace import Trace
from loquent.visual import TokenTexts
from loquent.visual.html import page
from loquent.visual.html.markup import element, joined
from visual import traces
from visual.traces import WORDS, Tokenizer

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The elements of a page: name, classes, attributes, the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[int] = []
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self.open:
            self.found[index][2].append(data)

    def texts(self, tag: str, *classes: str) -> list[str]:
        """Those of the elements of a kind that have all of these classes."""
        return [
            "".join(data).strip()
            for name, attributes, data in self.found
            if name == tag and set(classes) <= set(attributes.get("class", "").split())
        ]


def read(*shown: Trace, words: list[str] = WORDS) -> Reader:
    return Reader(page(shown, TokenTexts(Tokenizer(words))))


def test_beams_are_a_tree_with_its_ranking() -> None:
    found = read(traces.two_beams())
    assert found.texts("div", "box", "best") == ["␣dog-1.000Σ -1.000", "␣ran-0.250Σ -1.250", "</s>#1-0.250Σ -1.500"]
    assert found.texts("div", "box", "result") == ["␣cat-0.500Σ -0.500", "</s>#2-1.000Σ -1.500"]
    assert found.texts("div", "box", "pruned") == ["␣ran-3.000Σ -3.000", "␣ran-2.000Σ -2.500", ".-4.000Σ -6.000",
                                                   ".-5.000Σ -6.250"]  # fmt: skip
    assert found.texts("tr", "best") == ["1-0.1667-1.500 / 32eosdog ran</s>"]
    assert found.texts("tr", "result") == ["2-0.3750-1.500 / 22eoscat</s>"]
    assert len(found.texts("path")) == len(found.texts("div", "box")) - 1  # less the prompt


def test_boxes_stand_beside_their_parents_and_on_no_other() -> None:
    found = read(traces.two_beams())
    places = [
        tuple(map(int, re.findall(r"(\d+)px", attributes["style"])))
        for name, attributes, _ in found.found
        if name == "div" and "chosen" in attributes.get("class", "") and "box" in attributes["class"]
    ]
    assert len(places) == len(set(places)) == 6
    assert {left for left, _ in places} == {190, 380, 570}


def test_a_heat_map_has_its_alternatives() -> None:
    found = read(traces.one_by_one())
    assert [found.texts("span", "t", f"p{number}") != [] for number in range(5)] == [True, False, True, False, True]
    assert [text.split("step")[0] for text in found.texts("span", "t")] == ["cat", "⏎", "</s>"]
    tips = found.texts("span", "tip")
    assert tips[1] == "step 2, token 7, log p -1.000⏎36.8%␣sat22.3%␣ran13.5%"
    assert len(found.texts("span", "row", "chosen")) == 3


def test_drafts_layers_and_contrast() -> None:
    found = read(traces.speculated(), traces.layered(), traces.contrastive())
    assert found.texts("h1") == ["Speculative decoding", "Greedy search with DoLa", "Contrastive search"]
    assert found.texts("span", "draft", "accepted") == ["✓ stands", "✓␣sat", "✓."]
    assert found.texts("span", "draft", "rejected") == ["✗ falls", "✗␣ran", "✗␣cat"]
    assert found.texts("span", "draft", "own") == ["→ the model's own", "→␣dog", "→</s>"]
    assert found.texts("td", "chosen") == ["0.5000", "0.7500"]
    assert "␣cat36.8%, repeats 0.900, value -0.300" in found.texts("span", "row")
    told = [attributes.get("title") for _, attributes, _ in found.found if "rejected" in attributes.get("class", "")]
    assert told == [None, "draft: 37.0%, model: 49.7%", "draft: 50.0%, model: 49.7%"]


@pytest.mark.parametrize("make", traces.ALL)
def test_a_page_needs_nothing_else(make: Callable[[], Trace]) -> None:
    text = page([make()], TokenTexts(Tokenizer(WORDS)))
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"<(script|link|img|iframe|object|embed|base|form)\b|@import|url\(", text)
    assert "default-src 'none'" in text
    found = Reader(text)
    assert not [name for _, attributes, _ in found.found for name in attributes if name in ("src", "srcset", "data")]
    assert not [name for _, attributes, _ in found.found for name in attributes if name.startswith("on")]


EVIL = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'", "&lt;", "</style>", "]]>", "-->", "</bdi>"]


def shape(found: Reader) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, tuple(attributes)) for name, attributes, _ in found.found]


@pytest.mark.parametrize("make", traces.ALL)
def test_hostile_texts_are_texts(make: Callable[[], Trace]) -> None:
    found = read(make(), words=EVIL)
    assert shape(found) == shape(read(make(), words=list("abcdefgh")))
    assert "script" not in {name for name, _, _ in found.found}


@given(st.lists(st.text(st.characters(codec=None, exclude_characters="\n"), max_size=8), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_text_of_a_token_changes_the_page(words: list[str]) -> None:
    for make in traces.ALL:
        text = page([make()], TokenTexts(Tokenizer(words)))
        text.encode("utf-8")
        assert shape(Reader(text)) == shape(read(make(), words=list("abcdefgh")))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), st.text(st.characters(codec="utf-8")))
def test_markup_escapes_what_is_none(inner: str, value: str) -> None:
    assert Reader(element("p", inner, title=value)).texts("p") == [inner.strip()]
    assert joined("<", element("b", ">")) == "&lt;<b>&gt;</b>"
