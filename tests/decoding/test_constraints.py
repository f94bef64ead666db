"""Constraints as objects: what they take, offer and refuse, beside transformers' own; and progress over several."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.beam_constraints import ConstraintListState

from loquent import (
    ArgumentError,
    ConfigError,
    Constraint,
    DisjunctiveConstraint,
    GenerationConfig,
    PhrasalConstraint,
)
from loquent.decoding.constraint_progress import Progress
from loquent.decoding.constraints import check_constraint

tokens = st.integers(0, 4)
phrase = st.lists(tokens, min_size=1, max_size=4)
phrases = st.lists(phrase, min_size=1, max_size=3).filter(
    lambda several: all(a[: len(b)] != b for i, a in enumerate(several) for j, b in enumerate(several) if i != j)
)
words = st.lists(phrase | phrases, min_size=1, max_size=3)


def made(library: Any, word: list[Any]) -> Any:
    kind = library.DisjunctiveConstraint if isinstance(word[0], list) else library.PhrasalConstraint
    return kind(word)


class Ours:
    DisjunctiveConstraint, PhrasalConstraint = DisjunctiveConstraint, PhrasalConstraint


@given(words, st.lists(tokens, max_size=12))
def test_progress_is_that_of_transformers(several: list[list[Any]], text: list[int]) -> None:
    theirs = ConstraintListState([made(transformers, word) for word in several])
    ours = Progress.over([made(Ours, word) for word in several])
    for length in range(len(text) + 1):
        theirs.completed = False
        theirs.reset(text[:length])
        found = ours.behind(text[:length])
        assert (found.complete, found.bank) == (theirs.completed, theirs.get_bank())
        assert found.steps() == tuple(dict.fromkeys(theirs.advance() or ()))


@given(words, st.lists(tokens, max_size=12), tokens, tokens)
def test_progress_never_changes(several: list[list[Any]], text: list[int], one: int, other: int) -> None:
    before = Progress.over([made(Ours, word) for word in several]).behind(text)
    facts = before.bank, before.steps(), before.complete
    alone = before.behind([other])
    left, right = before.behind([one]), before.behind([other])
    assert (before.bank, before.steps(), before.complete) == facts
    assert (right.bank, right.steps()) == (alone.bank, alone.steps())
    assert left.behind(text).bank == before.behind([one, *text]).bank


@given(phrase | phrases, st.lists(tokens, max_size=6))
def test_objects_step_as_those_of_transformers(word: list[Any], text: list[int]) -> None:
    ours, theirs = made(Ours, word), made(transformers, word)
    for token in text:
        assert ours.advance() == theirs.advance()
        assert ours.does_advance(token) == theirs.does_advance(token)
        found = ours.update(token)
        assert found == theirs.update(token)
        assert (ours.remaining(), ours.completed) == (theirs.remaining(), theirs.completed) or found[2]
        if found[1] or found[2]:
            return  # transformers' phrases count a token that breaks them as their first
    twin = ours.copy(stateful=True)
    assert (twin.advance(), twin.remaining()) == (ours.advance(), ours.remaining())
    assert ours.copy().remaining() == ours.seqlen
    before = ours.remaining()
    copy.deepcopy(ours).update(text[0] if text else 0)
    assert ours.remaining() == before


@pytest.mark.parametrize("bad", [[], None, "ab", [1, -1], [1.5], [True]])
def test_phrases_that_are_none(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="token_ids has"):
        PhrasalConstraint(bad)
    with pytest.raises(ArgumentError, match="token_ids"):
        DisjunctiveConstraint([bad])


@pytest.mark.parametrize("bad", [[], None, [[1, 2], [1]], [[1], [1]]])
def test_alternatives_that_are_none(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="nested_token_ids"):
        DisjunctiveConstraint(bad)


class Broken(PhrasalConstraint):
    """Fails in one way."""

    def __init__(self, way: str) -> None:
        super().__init__([1, 2])
        self.way = way

    def does_advance(self, token_id: int) -> bool:
        return self.way != "offers" and super().does_advance(token_id)

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        return (True, self.way == "remains", False) if self.way != "offers" else super().update(token_id)

    def copy(self, stateful: bool = False) -> Broken:
        return Broken(self.way)


@pytest.mark.parametrize(
    ("way", "message"),
    [("offers", "offers 1, and does not advance"), ("never", "not met by 10000"), ("remains", "has steps remaining")],
)
def test_constraints_whose_steps_do_not_lead_there(way: str, message: str) -> None:
    broken = Broken(way)
    with pytest.raises(ArgumentError, match=message):
        broken.test()
    with pytest.raises(ArgumentError, match=message):
        check_constraint(broken, 10, ())
    assert isinstance(broken, Constraint)


def test_configs_show_constraints_and_save_none(tmp_path: Path) -> None:
    config = GenerationConfig(num_beams=2, constraints=[PhrasalConstraint([1, 2]), DisjunctiveConstraint([[3], [4]])])
    assert '"PhrasalConstraint([1, 2])"' in repr(config)
    assert '"DisjunctiveConstraint([[3], [4]])"' in repr(config)
    with pytest.raises(ConfigError, match=r"PhrasalConstraint\(\[1, 2\]\).*cannot be saved"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    config.update(constraints=None, force_words_ids=[[1, 2], [[3], [4]]])
    config.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).force_words_ids == [[1, 2], [[3], [4]]]
