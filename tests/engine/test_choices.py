"""Selection within the backend's step: the same tokens as by the rules on its rows, whatever is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding.chosen import choose
from engine.test_engine import assert_nothing_held, finish
from engine.toy import SelectingToy, ToyBackend
from loquent.decoding.choice import Choice
from loquent.decoding.drafts import ModelDraft
from loquent.decoding.pace import Constant
from loquent.decoding.rules import (
    BadWords,
    Custom,
    ForcedBegin,
    ForcedEnd,
    MinLength,
    MinP,
    NoRepeatNgrams,
    RepetitionPenalty,
    Suppress,
    SuppressAtBegin,
    Temperature,
    TopK,
    TopP,
)
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import beam_search, one_by_one, speculate
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.wants import Scores, Top
from loquent.engine import Engine
from loquent.errors import ArgumentError

GREEDY = Decoding(one_by_one, Stopping(9))
BEAM = Decoding(
    partial(beam_search, width=3, length_penalty=1.0, early_stopping=False),
    Stopping(7, eos=(2,)),
    branches=3,
    returned=2,
)


def core_choose(row: np.ndarray, choice: Choice) -> Any:
    return pytest.importorskip("loquent.native._core", reason="the native core is not built").choose(row, choice)


choosers = pytest.mark.parametrize("chooser", [choose, core_choose], ids=["rules", "native"])


def halved(input_ids: Any, scores: Any) -> Any:
    return scores / 2


rules = st.fixed_dictionaries(
    {},
    optional={
        "repetition": st.floats(0.5, 2).map(RepetitionPenalty),
        "ngrams": st.integers(1, 3).map(NoRepeatNgrams),
        "words": st.sampled_from([BadWords(((5,), (1, 2), (3, 3, 3))), BadWords(((8,), (9,)))]),
        "length": st.sampled_from([MinLength((2,), total=6), MinLength((2, 7), new=4)]),
        "begin": st.just(ForcedBegin(4)),
        "end": st.sampled_from([ForcedEnd((6,), 9), ForcedEnd((6, 3), 9)]),
        "suppress": st.just(Suppress((0, 10))),
        "suppress at begin": st.just(SuppressAtBegin((9, 4))),
        "custom": st.just(Custom((halved,))),
        "temperature": st.floats(0.3, 2).map(Temperature),
        "top-k": st.integers(1, 15).map(TopK),
        "top-p": st.floats(0.05, 0.95).map(TopP),
        "min-p": st.floats(0, 0.5).map(MinP),
    },
).map(lambda chosen: tuple(chosen.values()))


def sliding(decoding: Decoding) -> Decoding:
    return replace(decoding, context=5)


asked = st.lists(
    st.tuples(
        st.lists(st.integers(0, 10), min_size=1, max_size=12),
        st.tuples(
            st.sampled_from(
                [
                    GREEDY,
                    sliding(GREEDY),
                    replace(GREEDY, sampled=True, seed=3),
                    replace(GREEDY, sampled=True, seed=2**64 + 2**63 + 9),
                    sliding(replace(GREEDY, sampled=True, seed=4)),
                    BEAM,
                ]
            ),
            rules,
        ).map(lambda pair: replace(pair[0], rules=pair[1])),
    ),
    min_size=1,
    max_size=4,
)


def results(engine: Engine, requests: list[tuple[list[int], Decoding]]) -> list[Any]:
    """What each request gives: its hypotheses' tokens, or the message that it fails with."""
    handles = [engine.submit(prompt, decoding) for prompt, decoding in requests]
    with np.errstate(invalid="ignore"):  # where the rules leave no token, the array rules subtract infinities
        while engine.step():
            pass
    assert_nothing_held(engine)
    found: list[Any] = []
    for handle in handles:
        try:
            found.append([hypothesis.tokens for hypothesis in handle.result()])
        except ArgumentError as error:
            found.append(str(error))
    return found


@choosers
@settings(max_examples=80, deadline=None)
@given(requests=asked, step_tokens=st.sampled_from([3, 2048]))
def test_both_ways_give_the_same_tokens(
    chooser: Callable[..., Any], requests: list[tuple[list[int], Decoding]], step_tokens: int
) -> None:
    backend = SelectingToy(chooser)
    selected = results(Engine(backend, page_size=4, step_tokens=step_tokens), requests)
    assert selected == results(Engine(ToyBackend(), page_size=4, step_tokens=step_tokens), requests)


@choosers
@pytest.mark.parametrize(
    ("decoding", "answered"),
    [
        (GREEDY, 9),
        (replace(GREEDY, sampled=True, rules=(TopK(4), RepetitionPenalty(1.2))), 9),
        (replace(GREEDY, rules=(ForcedEnd((1,), 11),)), 8),  # the token that is forced
        (replace(GREEDY, rules=(Custom((halved,)), TopK(4))), 0),
        (replace(GREEDY, context=4), 9),
    ],
)
def test_what_can_be_asked_is_asked(chooser: Callable[..., Any], decoding: Decoding, answered: int) -> None:
    backend = SelectingToy(chooser)
    engine = Engine(backend, step_tokens=2)
    finish(engine, engine.submit([1, 2, 3], decoding))
    assert backend.answered == answered


def test_a_choice_is_one_object_as_long_as_the_request_runs() -> None:
    seen: list[Choice] = []

    def noting(row: np.ndarray, choice: Choice) -> Any:
        seen.append(choice)
        return choose(row, choice)

    engine = Engine(SelectingToy(noting))
    finish(engine, engine.submit([1], replace(GREEDY, rules=(TopK(3), NoRepeatNgrams(2)), sampled=True)))
    assert len(seen) == 9
    assert len(set(map(id, seen))) == 1


@choosers
@pytest.mark.parametrize("decoding", [GREEDY, replace(GREEDY, sampled=True), BEAM], ids=["greedy", "sampled", "beams"])
@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not numbers"), (-np.inf, r"leave no token|leave \d+ continuations|not numbers")]
)
def test_what_cannot_be_chosen_from_fails_its_request_alone(
    chooser: Callable[..., Any], decoding: Decoding, value: float, message: str
) -> None:
    class Breaking(SelectingToy):
        def _row(self, pairs: np.ndarray) -> np.ndarray:
            row = super()._row(pairs)
            return row * 0 + np.float32(value) if pairs[0, 0] == 5 else row

    engine = Engine(Breaking(chooser))
    good, bad = engine.submit([1, 2], GREEDY), engine.submit([5, 2], decoding)
    with np.errstate(invalid="ignore"):
        [result] = finish(engine, good)
    assert [result] == results(Engine(ToyBackend()), [([1, 2], GREEDY)])
    with pytest.raises(ArgumentError, match=message):
        bad.result()
    assert_nothing_held(engine)


@pytest.mark.parametrize("chooser", [None, core_choose], ids=["rules", "native"])
@pytest.mark.parametrize("decoding", [GREEDY, replace(GREEDY, sampled=True), BEAM], ids=["greedy", "sampled", "beams"])
def test_infinite_logits_have_a_highest_one_and_no_probabilities(
    chooser: Callable[..., Any] | None, decoding: Decoding
) -> None:
    class Overflowing(SelectingToy):
        selects = chooser is not None

        def _row(self, pairs: np.ndarray) -> np.ndarray:
            row = super()._row(pairs)
            row[[4, 6]] = np.inf
            return row

    engine = Engine(Overflowing(chooser) if chooser else Overflowing(choose))
    handle = engine.submit([5, 2], decoding)
    with np.errstate(invalid="ignore"):
        while engine.step():
            pass
    if decoding is GREEDY:
        assert list(handle.result()[0].tokens) == [4] * 9
    else:
        with pytest.raises(ArgumentError, match="not numbers"):
            handle.result()


@choosers
def test_beams_that_the_rules_leave_nothing_end_there(chooser: Callable[..., Any]) -> None:
    everything = Suppress(tuple(range(11)))
    decoding = replace(BEAM, rules=(everything,))
    for backend in (SelectingToy(chooser), ToyBackend()):
        [message] = results(Engine(backend), [([1, 2], decoding)])
        assert "leave 0 continuations" in message


@choosers
def test_more_candidates_than_there_are_tokens(chooser: Callable[..., Any]) -> None:
    wide = replace(BEAM, strategy=partial(beam_search, width=30, length_penalty=1.0, early_stopping=False), branches=30)
    selected = results(Engine(SelectingToy(chooser)), [([1, 2], wide)])
    assert selected == results(Engine(ToyBackend()), [([1, 2], wide)])


def drafting(decoding: Decoding, make: Callable[..., ToyBackend]) -> tuple[Engine, Decoding]:
    """An engine whose model is one of two toys, and the decoding with drafts of the other."""
    engine = Engine(make(seed=0), page_size=4)
    reader = engine.add_reader(make(seed=0).truncated(1))
    draft = partial(ModelDraft, reader=reader, threshold=0.2)
    strategy = partial(speculate, draft=draft, pace=partial(Constant, 3))
    return engine, replace(decoding, strategy=strategy, readers=(reader,))


@choosers
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10), min_size=1, max_size=12), rules, st.booleans(), st.integers(0, 99))
def test_both_ways_draft_and_verify_the_same(
    chooser: Callable[..., Any], prompt: list[int], rules: tuple[Any, ...], sampled: bool, seed: int
) -> None:
    decoding = replace(GREEDY, rules=rules, sampled=sampled, seed=seed)
    found = []
    for make in (partial(SelectingToy, chooser), ToyBackend):
        engine, drafted = drafting(decoding, make)
        found.append(results(engine, [(prompt, drafted)]))
    assert found[0] == found[1]
    if not sampled:
        assert found[0] == results(Engine(ToyBackend()), [(prompt, decoding)])


@choosers
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("more", "asks"), [((), True), ((Custom((halved,)),), False)], ids=["known", "custom"])
def test_drafts_are_made_and_verified_by_the_backend_where_it_knows_the_rules(
    chooser: Callable[..., Any], sampled: bool, more: tuple[Any, ...], asks: bool
) -> None:
    rules = (NoRepeatNgrams(3), *more, Temperature(0.8), TopK(6))
    engine, drafted = drafting(replace(GREEDY, rules=rules, sampled=sampled), partial(SelectingToy, chooser))
    [reader] = drafted.readers
    finish(engine, engine.submit([1, 2, 3], drafted))
    for backend, number in (engine.backend, "verified"), (reader.backend, "answered"):
        assert isinstance(backend, SelectingToy)
        assert (getattr(backend, number) > 0) == asks


def test_scores_outlive_the_step_that_gave_them() -> None:
    """The backend's rows are its own memory, which the next run uses again."""
    kept: list[Any] = []

    def ask(task: Task) -> Strategy:
        sequence = task.open()
        kept.extend((yield [Read(sequence, task.prompt, Scores())]))
        kept.extend((yield [Read(sequence, [7], Scores())]))
        kept.extend((yield [Read(sequence, [8], Top(2))]))
        task.commit([0])

    backend = SelectingToy(choose)
    engine = Engine(backend)
    finish(engine, engine.submit([3, 1], Decoding(ask, Stopping(1), (Temperature(0.5),))))
    for scores, text in zip(kept, ([3, 1], [3, 1, 7])):
        logits = backend.logits(text)
        np.testing.assert_allclose(scores, 2 * (logits - np.log(np.exp(logits).sum())), rtol=1e-5)
    assert backend.answered == 1
