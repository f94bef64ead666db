"""Traces in the terminal: the numbers and marks of hand-made ones, at any width, with and without colours."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import Branched, Trace
from loquent.visual import VIEWS, TokenTexts, View
from loquent.visual.terminal import Canvas, draw
from visual import traces
from visual.traces import WORDS, Tokenizer


def drawn(
    view: View, trace: Trace, width: int = 100, words: list[str] = WORDS, coloured: bool = False, folded: bool = True
) -> str:
    """What a console prints."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        color_system="truecolor" if coloured else None,
        force_terminal=coloured,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(draw(view, trace, Canvas(TokenTexts(Tokenizer(words)), width, coloured, folded)))
    return stream.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def test_beams_show_scores_fates_and_the_ranking() -> None:
    found = rows(drawn("beams", traces.two_beams()))
    assert ["1", "●", "#2", "␣cat", "-0.500", "-0.500", "1→1", "cat"] in found
    assert ["●", "#1", "␣dog", "-1.000", "-1.000", "1→2", "dog"] in found
    assert ["×", "␣ran", "-3.000", "-3.000", "1", "ran"] in found
    assert ["2", "■", "#2", "</s>", "-1.000", "-1.500", "1", "cat</s>"] in found
    assert ["●", "#1", "␣ran", "-0.250", "-1.250", "2→1", "dog", "ran"] in found
    assert ["■", "#1", "</s>", "-0.250", "-1.500", "1", "dog", "ran</s>"] in found
    assert ["1", "-0.1667", "-1.500", "/", "3^2", "eos", "dog", "ran</s>"] in found
    assert ["2", "-0.3750", "-1.500", "/", "2^2", "eos", "cat</s>"] in found


def test_runs_without_branches_are_one_line_of_the_tree() -> None:
    lines = [line.strip() for line in drawn("beams", traces.two_beams()).splitlines()]
    assert "├── ␣cat  Σ -0.500" in lines
    assert "│   ├── </s>  Σ -1.500 ■ #2" in lines
    assert "│   └── ␣sat  Σ -2.000 ×" in lines
    assert "└── ␣dog ran</s>  Σ -1.500 ■ #1" in lines


def test_groups_have_a_column() -> None:
    found = rows(drawn("beams", traces.two_groups()))
    assert ["Step", "Group", "Token", "log", "p", "Σ", "log", "p", "Beam", "Text"] in found
    assert ["2", "●", "#2", "␣dog", "-1.000", "-1.000", "1→2", "dog"] in found
    assert ["2", "■", "#2", "</s>", "-0.500", "-1.500", "2", "dog</s>"] in found


def test_probabilities_and_what_else_was_likely() -> None:
    plain = drawn("probs", traces.one_by_one())
    found = rows(plain)
    assert ["1", "␣cat", "90.5%", "█████████", "␣dog", "5.0%"] in found
    assert ["2", "⏎", "36.8%", "███▋", "␣sat", "22.3%", "␣ran", "13.5%"] in found
    assert ["3", "</s>", "1.8%", "▏", ".", "95.1%"] in found
    assert "under 5%" not in plain  # a heat map says nothing without colours
    coloured = drawn("probs", traces.one_by_one(), coloured=True)
    assert "\x1b[38;2;0;0;0;48;2;143;191;224m cat" in coloured  # 80% and more
    assert "\x1b[38;2;0;0;0;48;2;244;128;79m</s>" in coloured  # under 5%


def test_contrastive_candidates_have_their_values() -> None:
    found = rows(drawn("probs", traces.contrastive()))
    assert ["1", "␣dog", "36.8%", "███▋", "0.200", "0.060", "␣cat", "36.8%", "value", "-0.300"] in found


def test_drafts_that_stand_and_fall() -> None:
    text = drawn("draft", traces.speculated())
    assert "2 of 4 tokens drafted by lookup stand (50%); 5 tokens in 3 passes, 1.67 each." in text
    assert ["2", "2/3", "█████▍", "✓␣sat", "✓.", "✗␣ran", "(37%)", "→␣dog"] in rows(text)
    assert ["5", "0/1", "✗␣cat", "(50%)", "→</s>"] in rows(text)


def test_layers_and_how_far_they_are() -> None:
    found = rows(drawn("layers", traces.layered()))
    assert ["1", "␣cat", "90.5%", "4", "0.1250", "0.5000"] in found
    assert ["2", "</s>", "81.9%", "2", "0.7500", "0.2500"] in found
    assert [row[:2] for row in found[-2:]] == [["2", "1"], ["4", "1"]]
    assert ["1", "␣cat", "90.5%", "4", "▃█"] in rows(drawn("layers", traces.layered(), width=50))


@pytest.mark.parametrize(
    ("view", "line"),
    [("beams", "No beams were searched."), ("draft", "Nothing was drafted."), ("layers", "No layer was chosen.")],
)
def test_what_is_not_there_is_said(view: View, line: str) -> None:
    assert drawn(view, traces.one_by_one()).strip() == line


@pytest.mark.parametrize("width", [24, 40, 80, 200])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("make", traces.ALL)
def test_no_line_is_wider_than_the_terminal(view: View, make: Any, width: int) -> None:
    words = [" 漢字仮名", "שלום", " \x1b[2J", "[red]", "\u202e", "ab" * 30, "\r\n", ":cat:"]
    for coloured in (False, True):
        text = drawn(view, make(), width, words, coloured)
        assert "\x1b[2J" not in text
        if not coloured:
            assert max(map(cell_len, text.splitlines())) <= width


def long_search(steps: int, width: int) -> Trace:
    """Beams that go on beside each other, and as many pruned candidates."""
    events = []
    for step in range(steps):
        nodes = [
            traces.kept(lane % 5, -1.0, -1.0 - step - lane / 8, lane if step else 0, lane) for lane in range(width)
        ]
        nodes += [traces.pruned(lane % 5, -2.0, -2.0 - step - lane / 8, lane if step else 0) for lane in range(width)]
        events.append(Branched(step, tuple(nodes)))
    return traces.trace_of(*events, results=(Hypothesis((0,) * steps, "length", -1.0),), num_beams=width)


def test_what_is_long_is_folded_on_terminals_and_whole_in_files() -> None:
    trace = long_search(40, 20)
    folded, whole = (drawn("beams", trace, folded=folded) for folded in (True, False))
    assert "24 steps left out" in folded
    assert "… 29 more" in folded
    assert len(folded.splitlines()) < 16 * 13 + 60
    assert "left out" not in whole + folded.split("24 steps")[0]
    assert len(rows(whole)) > 40 * 40


@given(st.lists(st.text(st.characters(codec=None), max_size=8), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_text_of_a_token_steers_the_terminal(words: list[str]) -> None:
    for make in traces.ALL:
        for view in VIEWS:
            text = drawn(view, make(), 60, words)
            assert not [character for character in text if character < " " and character != "\n"]
