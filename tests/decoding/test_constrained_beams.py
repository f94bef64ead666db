"""Constrained beams against transformers, row by row: the same sequences and scores, whatever the constraints."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loquent
from decoding.comparing import PROMPTS, arguments, compare
from decoding.pairs import MakePair
from loquent import ArgumentError

SETTINGS: dict[str, dict[str, Any]] = {
    "a token": {"force_words_ids": [[10]]},
    "a phrase": {"force_words_ids": [[10, 11, 12]]},
    "of which the prompt has some": {"force_words_ids": [[9, 9, 20], [5, 6]]},
    "two": {"force_words_ids": [[10, 11], [20]]},
    "two that begin alike": {"force_words_ids": [[10, 11], [10, 12, 13]]},
    "one with repetitions": {"force_words_ids": [[10, 10, 11]]},
    "alternatives": {"force_words_ids": [[[10, 11], [12], [20, 21, 22]]]},
    "alternatives and a phrase": {"force_words_ids": [[[10, 11], [20]], [12, 13]]},
    "alternatives of one length": {"force_words_ids": [[[10, 11], [20, 21]], [[12], [13]]]},
    "more than there is room for": {"force_words_ids": [[10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25]]},
    "few beams": {"num_beams": 2, "force_words_ids": [[10, 11, 12], [20, 21]], "num_return_sequences": 2},
    "many beams": {"num_beams": 8, "force_words_ids": [[10, 11], [20]], "num_return_sequences": 5},
    "no length penalty": {"length_penalty": 0.0, "force_words_ids": [[10, 11]]},
    "short ones preferred": {"length_penalty": -1.5, "force_words_ids": [[10, 11]]},
    "long ones preferred": {"length_penalty": 2.5, "force_words_ids": [[10, 11]]},
    "stopping early": {"early_stopping": True, "force_words_ids": [[10, 11]]},
    "never stopping early": {"early_stopping": "never", "force_words_ids": [[10]]},
    "several ends": {"eos_token_id": [2, 5, 11, 17], "force_words_ids": [[10, 12]]},
    "no end": {"eos_token_id": None, "force_words_ids": [[10, 12]]},
    "a single token": {"max_new_tokens": 1, "force_words_ids": [[10, 12]]},
    "long": {"max_new_tokens": 24, "force_words_ids": [[10, 12], [20, 21]]},
    "repetition": {"repetition_penalty": 1.6, "force_words_ids": [[10, 12]]},
    "bad words": {"bad_words_ids": [[12], [4]], "force_words_ids": [[10, 12], [20]]},
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_sequences_and_scores_are_those_of_transformers(llama_pair: MakePair, name: str, seed: int) -> None:
    ours, theirs = llama_pair(seed)
    for prompt in PROMPTS:
        for copies in (1, SETTINGS[name].get("num_return_sequences", 3)):
            compare(ours, theirs, prompt, SETTINGS[name] | {"num_return_sequences": copies})
    ours._engine_slot.engine.refresh()  # gives back what results held that are gone
    assert ours._engine_slot.engine.space.held == 0


words = st.lists(st.integers(3, 12), min_size=1, max_size=4)


def _independent(phrases: list[list[int]]) -> bool:
    """Whether no phrase begins another: such alternatives are refused."""
    return not any(a[: len(b)] == b for i, a in enumerate(phrases) for j, b in enumerate(phrases) if i != j)


anything = st.fixed_dictionaries(
    {
        "num_beams": st.integers(2, 6),
        "max_new_tokens": st.integers(1, 16),
        "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
        "early_stopping": st.sampled_from([True, False, "never"]),
        "eos_token_id": st.none() | st.lists(st.integers(13, 36), min_size=1, max_size=4, unique=True),
        "force_words_ids": st.lists(
            words | st.lists(words, min_size=1, max_size=3).filter(_independent), min_size=1, max_size=3
        ),
    },
    optional={"repetition_penalty": st.sampled_from([0.7, 1.3])},
)


@pytest.fixture
def copied_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, copies of transformers' DisjunctiveConstraint share the list of what they have met."""

    def copy_of(self: Any, stateful: bool = False) -> Any:
        twin = transformers.DisjunctiveConstraint(self.token_ids)
        if stateful:
            twin.current_seq, twin.completed = list(self.current_seq), self.completed
        return twin

    monkeypatch.setattr(transformers.DisjunctiveConstraint, "copy", copy_of)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 3), prompt=st.lists(st.integers(2, 36), min_size=1, max_size=6), asked=anything, data=st.data()
)
def test_any_settings(
    llama_pair: MakePair, copied_lists: None, seed: int, prompt: list[int], asked: dict[str, Any], data: st.DataObject
) -> None:
    ours, theirs = llama_pair(seed)
    compare(ours, theirs, prompt, asked | {"num_return_sequences": data.draw(st.integers(1, asked["num_beams"]))})


def test_impossible_steps_take_no_beam(llama_pair: MakePair) -> None:
    """What a rule bans is no candidate, and beams that could go on lose no place to it, as they do in transformers."""
    ours, _ = llama_pair(2)
    asked = arguments({"no_repeat_ngram_size": 2, "force_words_ids": [[10, 12]], "num_return_sequences": 4})
    rows = ours.generate([PROMPTS[0]], **asked).tolist()
    assert len({tuple(row) for row in rows}) == 4
    assert all(len(set(itertools.pairwise(row))) == len(row) - 1 for row in rows)
    only = ours.generate([[7]], **arguments({"bad_words_ids": [[10]], "force_words_ids": [[10]]})).tolist()
    assert 10 not in only[0]


def test_words_that_find_no_room_before_a_forced_end_are_left_out(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(1)
    asked = arguments({"force_words_ids": [[10, 11, 12, 13, 14]], "max_new_tokens": 4, "forced_eos_token_id": 2})
    [row] = ours.generate([PROMPTS[0]], num_return_sequences=1, **asked).tolist()
    assert row[-1] == 2
    assert len(row) == len(PROMPTS[0]) + 4
    assert ours._engine_slot.engine.space.held == 0


@pytest.mark.parametrize("word", [[10, 11, 12], [[20], [21, 22]], [5, 6]])
def test_words_are_there_when_there_is_just_room(llama_pair: MakePair, word: list[Any]) -> None:
    """The fullest bank's best always goes on; with more room than that, other beams may win it."""
    phrases = word if isinstance(word[0], list) else [word]
    for seed in range(4):
        ours, _ = llama_pair(seed)
        room = max(map(len, phrases))
        asked = arguments({"force_words_ids": [word], "max_new_tokens": room, "eos_token_id": None})
        [row] = ours.generate([[7, 8]], **asked)[:, 2:].tolist()
        assert any(row[at : at + len(phrase)] == phrase for phrase in phrases for at in range(len(row)))


def test_a_batch_gives_what_each_row_gives_alone(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(3)
    asked = arguments({"force_words_ids": [[10, 11], [[20], [21, 22]]], "num_return_sequences": 2})
    batch = ours.generate(PROMPTS, **asked)[:, max(map(len, PROMPTS)) :].tolist()
    for row, prompt in enumerate(PROMPTS):
        alone = ours.generate([prompt], **asked)[:, len(prompt) :].tolist()
        assert [tokens[: len(alone[0])] for tokens in batch[2 * row : 2 * row + 2]] == alone


class Either(loquent.Constraint):
    """A caller's own: one of two tokens, twice. Its stateful copies share what changes, as careless ones do."""

    def __init__(self, first: int, second: int) -> None:
        self.options, self.seqlen, self.taken = [first, second], 2, [0]
        super().__init__()

    def advance(self) -> list[int] | None:
        return None if self.taken[0] == 2 else self.options

    def does_advance(self, token_id: int) -> bool:
        return self.taken[0] < 2 and token_id in self.options

    def update(self, token_id: int) -> tuple[bool, bool, bool]:
        if not self.does_advance(token_id):
            self.reset()
            return False, False, True
        self.taken[0] += 1
        return True, self.taken[0] == 2, False

    def reset(self) -> None:
        self.taken = [0]

    def remaining(self) -> int:
        return 2 - self.taken[0]

    def copy(self, stateful: bool = False) -> Either:
        twin = copy.copy(self)
        twin.taken = self.taken if stateful else [0]
        return twin


def test_a_constraint_of_the_callers_own(llama_pair: MakePair) -> None:
    ours, _ = llama_pair(0)
    asked = arguments({"constraints": [Either(10, 11)], "max_new_tokens": 2, "eos_token_id": None})
    [row] = ours.generate([[7, 8]], **asked)[:, 2:].tolist()
    assert set(row) <= {10, 11}
    phrases = [loquent.PhrasalConstraint([10, 11]), loquent.DisjunctiveConstraint([[20], [21, 22]])]
    by_words = ours.generate([[7, 8]], **arguments({"force_words_ids": [[10, 11], [[20], [21, 22]]]}))
    for constraints in (phrases, [transformers.PhrasalConstraint([10, 11]), phrases[1]]):
        assert ours.generate([[7, 8]], **arguments({"constraints": constraints})).tolist() == by_words.tolist()
    mixed = arguments({"constraints": phrases[:1], "force_words_ids": [[[20], [21, 22]]]})
    assert ours.generate([[7, 8]], **mixed).tolist() == by_words.tolist()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 1, "force_words_ids": [[10]]}, "need beams. Pass num_beams above 1"),
        ({"do_sample": True, "force_words_ids": [[10]]}, "does not go with constraints"),
        ({"num_beam_groups": 2, "diversity_penalty": 1.0, "force_words_ids": [[10]]}, "does not go with constraints"),
        ({"force_words_ids": []}, "are empty"),
        ({"force_words_ids": [[]]}, "no word"),
        ({"force_words_ids": [[10, 37]]}, "asks for the token 37; the vocabulary is 0 to 36"),
        ({"force_words_ids": [[10, -1]]}, "has -1 in a phrase"),
        ({"force_words_ids": [[[10, 11], [10]]]}, "begins another of its phrases"),
        ({"force_words_ids": [[[10, 11], [12, 40]]]}, "asks for the token 40"),
        ({"force_words_ids": [[10, 2]]}, "asks for the end token 2"),
        ({"constraints": [[10, 11]]}, "which has no advance"),
    ],
)
def test_what_cannot_work_is_refused(llama_pair: MakePair, asked: dict[str, Any], message: str) -> None:
    ours, _ = llama_pair(0)
    with pytest.raises(ArgumentError, match=message):
        ours.generate([[3, 4]], **arguments(asked))
