"""What is drawn, before it is drawn: who extends whom, which branches won, what a result's places are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loquent
from loquent.visual.folding import folded
from loquent.visual.places import places_of
from loquent.visual.ranking import ranking_of
from loquent.visual.rounds import rounds_of
from loquent.visual.shades import SHADES, shade_number
from loquent.visual.tree import Branch, Tree, grow
from loquent.visual.views import has, name_of
from visual import traces
from visual.traces import CAT, DOG, DOT, END, RAN, SAT


def test_a_tree_joins_what_lanes_joined() -> None:
    tree = grow(traces.two_beams())
    assert [[branch.tokens for branch in row] for row in tree.steps] == [
        [(CAT,), (DOG,), (RAN,)],
        [(CAT, END), (CAT, SAT), (CAT, RAN), (DOG, RAN)],
        [(CAT, SAT, DOT), (DOG, RAN, END), (DOG, RAN, DOT)],
    ]
    ranks = {branch.tokens: branch.ranks for row in tree.steps for branch in row if branch.ranks}
    assert ranks == {(CAT,): [1], (DOG,): [0], (CAT, END): [1], (DOG, RAN): [0], (DOG, RAN, END): [0]}


def test_groups_keep_to_themselves() -> None:
    tree = grow(traces.two_groups())
    assert tree.groups == 2
    assert [(branch.group, branch.tokens) for branch in tree.steps[1]] == [
        (0, (CAT, END)),
        (1, (DOG, END)),
        (1, (DOG, DOT)),
    ]
    first, second = (places_of(traces.two_groups(), tree, index) for index in range(2))
    assert [node.token for node in first[0].others] == [DOG]
    assert [node.log_probability for node in second[0].others] == [-1.5]


def test_the_ranking_shows_how_scores_come_about() -> None:
    trace = traces.two_beams()
    ranked = ranking_of(trace, grow(trace))
    assert [each.formula for each in ranked] == ["-1.500 / 3^2", "-1.500 / 2^2"]
    assert [each.score for each in ranked] == pytest.approx([-1.5 / 9, -1.5 / 4])
    assert all(each.total / each.length**each.penalty == pytest.approx(each.score) for each in ranked)


def test_places_on_a_tree_and_in_a_line() -> None:
    trace = traces.two_beams()
    best = places_of(trace, grow(trace), 0)
    assert [place.node.token for place in best] == [DOG, RAN, END]
    assert [[node.token for node in place.others] for place in best] == [[CAT, RAN], [], [DOT]]
    trace = traces.speculated()
    line = places_of(trace, grow(trace), 0)
    assert [(place.step, place.node.token, place.origin) for place in line] == [
        (0, CAT, "model"),
        (1, SAT, "draft"),
        (2, DOT, "draft"),
        (3, DOG, "instead"),
        (4, END, "instead"),
    ]
    assert [node.token for node in line[3].others] == [RAN]
    trace = traces.layered()
    assert [place.layer.layer for place in places_of(trace, grow(trace), 0) if place.layer] == [4, 2]


def test_rounds_count_what_stands() -> None:
    rounds = rounds_of(traces.speculated())
    assert (rounds.drafted, rounds.accepted, rounds.written, rounds.passes) == (4, 2, 5, 3)
    assert rounds.summary == "2 of 4 tokens drafted by lookup stand (50%); 5 tokens in 3 passes, 1.67 each."


def test_names_and_what_there_is_to_see() -> None:
    assert name_of(traces.one_by_one()) == "Multinomial sampling"
    assert name_of(traces.layered()) == "Greedy search with DoLa"
    assert name_of(traces.two_groups()) == "Diverse beam search"
    seen = {make.__name__: [view for view in ("beams", "probs", "draft", "layers") if has(make(), view)]
            for make in traces.ALL}  # fmt: skip
    assert seen["two_beams"] == ["beams", "probs"]
    assert seen["speculated"] == ["probs", "draft"]
    assert seen["layered"] == ["probs", "layers"]


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_folding_loses_the_middle_alone(items: list[int], limit: int) -> None:
    first, missing, last = folded(items, limit)
    assert len(first) + missing + len(last) == len(items)
    assert len(first) + len(last) == min(limit, len(items))
    assert items[: len(first)] == first
    assert items[len(items) - len(last) :] == last
    assert folded(items, None) == (items, 0, [])


@given(st.floats(0, 1))
def test_a_shade_is_the_last_that_is_reached(probability: float) -> None:
    number = shade_number(probability)
    assert SHADES[number].least <= probability
    assert number == len(SHADES) - 1 or probability < SHADES[number + 1].least


def check_against_itself(tree: Tree, branch: Branch) -> None:
    way = branch.way()
    assert branch.node.score == pytest.approx(sum(each.node.log_probability for each in way), abs=1e-4)
    assert all(parent.node.fate == "kept" for parent in way[:-1])
    assert [each.step for each in way] == list(range(len(way)))


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_beams": 4, "num_return_sequences": 2, "do_sample": True, "seed": 1, "length_penalty": 0.5},
        {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "diversity_penalty": 0.5},
    ],
)
def test_the_tree_of_a_real_search_adds_up(shared_data: Path, options: dict[str, Any]) -> None:
    model = loquent.load(shared_data / "models/stories260k")
    run = model.run(["Once upon a time"], max_new_tokens=12, output_trace=True, **options)
    assert [event.finished for event in run.events() if event.finished] == ["length"] * options["num_return_sequences"]
    [trace] = run.traces()
    tree = grow(trace)
    for row in tree.steps:
        for branch in row:
            check_against_itself(tree, branch)
    assert [leaf.tokens for leaf in tree.leaves if leaf] == [result.tokens for result in trace.results]
    for each in ranking_of(trace, tree):
        assert each.result.score == pytest.approx(each.total / each.length ** trace.settings.get("length_penalty", 1))
        assert math.isfinite(each.score)
    for index, result in enumerate(trace.results):
        assert tuple(place.node.token for place in places_of(trace, tree, index)) == result.tokens


def test_a_cancelled_search_has_what_there_was(shared_data: Path) -> None:
    model = loquent.load(shared_data / "models/stories260k")
    run = model.run(["Once upon a time"], max_new_tokens=50, output_trace=True)
    events = run.events()
    for _ in range(5):
        next(events)
    events.close()
    [trace] = run.traces()
    assert trace.results[0].reason == "cancelled"
    assert len(places_of(trace, grow(trace), 0)) == len(trace.results[0].tokens) == 5
