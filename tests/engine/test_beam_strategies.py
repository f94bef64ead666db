"""Beams of all kinds on the toy model: brute force, the pages they hold, what they stream, in any company."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.toy import ToyBackend
from loquent.decoding.arrays import log_softmax
from loquent.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from loquent.decoding.rules import NoRepeatNgrams, RepetitionPenalty, Temperature
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import beam_sampling, beam_search, constrained_beam_search, diverse_beam_search
from loquent.decoding.task import Decoding, Hypothesis
from loquent.decoding.trace import Branched
from loquent.engine import Engine, Handle

WIDTH = 4
CONSTRAINTS = (PhrasalConstraint([4, 7]), DisjunctiveConstraint([[5], [8, 1]]))
STRATEGIES: dict[str, Any] = {
    "search": beam_search,
    "sampling": beam_sampling,
    "diverse": partial(diverse_beam_search, groups=2, diversity_penalty=0.7, filler=2),
    "diverse, all": partial(diverse_beam_search, groups=4, diversity_penalty=0.7, filler=2),
    "constrained": partial(constrained_beam_search, constraints=CONSTRAINTS),
}
PENALTIES = st.sampled_from([-1.0, 0.0, 1.0, 2.0])
EARLY = st.sampled_from([True, False, "never"])
TEXT = st.lists(st.integers(0, 8), min_size=1, max_size=20)


def decoding(name: str, *, length_penalty: float = 1.0, early_stopping: Any = False, **changes: Any) -> Decoding:
    strategy = partial(STRATEGIES[name], width=WIDTH, length_penalty=length_penalty, early_stopping=early_stopping)
    asked = Decoding(strategy, Stopping(9, eos=(2, 6)), branches=WIDTH, returned=WIDTH, seed=3)
    return replace(asked, **changes)


def run(engine: Engine, *handles: Handle) -> list[list[Hypothesis]]:
    while engine.step():
        pass
    return [handle.result() for handle in handles]


def alone(prompt: list[int], asked: Decoding, toy: ToyBackend | None = None) -> list[Hypothesis]:
    engine = Engine(toy or ToyBackend())
    [result] = run(engine, engine.submit(prompt, asked))
    assert engine.space.held == 0
    return result


def total(toy: ToyBackend, prompt: list[int], tokens: tuple[int, ...]) -> float:
    rows = (log_softmax(toy.logits([*prompt, *tokens[:at]])[None])[0, token] for at, token in enumerate(tokens))
    return float(sum(rows))


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=40, deadline=None)
@given(prompt=TEXT, penalty=PENALTIES, early=EARLY, seed=st.integers(0, 5), sharpness=st.sampled_from([0.5, 1.0, 4.0]))
def test_what_is_streamed_is_the_best_result(
    name: str, prompt: list[int], penalty: float, early: Any, seed: int, sharpness: float
) -> None:
    toy = ToyBackend(seed=seed)
    toy.matrix *= sharpness
    engine = Engine(toy)
    handle = engine.submit(prompt, decoding(name, length_penalty=penalty, early_stopping=early, seed=seed))
    streamed: list[int] = []
    while not handle.done:
        engine.step()
        streamed += handle.new_tokens()
    assert tuple(streamed) == handle.result()[0].tokens


@pytest.mark.parametrize(("name", "least"), [("search", 20), ("sampling", 20), ("constrained", 20), ("diverse", 0)])
def test_what_beams_agree_on_is_streamed_at_once(name: str, least: int) -> None:
    """Without end tokens nothing is finished before the end, and the rivals are the sequences that are read next."""
    early = 0
    for seed in range(6):
        toy = ToyBackend(seed=seed)
        toy.matrix *= 2
        engine = Engine(toy)
        handle = engine.submit([1, 2, 3], decoding(name, stopping=Stopping(20), seed=seed))
        request = engine.scheduler.waiting[0]
        streamed: list[int] = []
        while engine.step():
            streamed += handle.new_tokens()
            texts = [[*each.read.sequence.tokens.tolist(), *each.read.tokens] for each in request.reads]
            columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts))
            assert [1, 2, 3, *streamed] == [column[0] for column in columns]
        early += len(streamed)
    assert early >= least


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=15, deadline=None)
@given(prompt=st.lists(st.integers(0, 8), min_size=1, max_size=40), page_size=st.sampled_from([1, 4, 16]))
def test_pages_held_are_those_of_live_hypotheses(name: str, prompt: list[int], page_size: int) -> None:
    engine = Engine(ToyBackend(), page_size=page_size, reuse_prefixes=False)
    engine.submit(prompt, decoding(name))
    request = engine.scheduler.waiting[0]
    going = True
    while going:
        going = engine.step()
        live = request.sequences
        assert len(live) <= WIDTH
        assert engine.space.held == len({page for sequence in live for page in sequence.tables[0].tolist()})
        assert engine.space.held <= request.most_bytes
    assert engine.space.held == 0


company = st.lists(
    st.tuples(TEXT, st.sampled_from(sorted(STRATEGIES)), PENALTIES, st.booleans(), st.integers(0, 6)),
    min_size=2,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(company, st.sampled_from([1, 3, 16]), st.sampled_from([3, 2048]), st.booleans())
def test_company_changes_nothing(asked: list[Any], page_size: int, step_tokens: int, reuse: bool) -> None:
    rules = (RepetitionPenalty(1.2), NoRepeatNgrams(3), Temperature(1.4))
    requests = [
        (prompt, decoding(name, length_penalty=penalty, rules=rules if ruled else (), seed=number), arrival)
        for number, (prompt, name, penalty, ruled, arrival) in enumerate(asked)
    ]
    engine = Engine(ToyBackend(), page_size=page_size, step_tokens=step_tokens, reuse_prefixes=reuse)
    handles: dict[int, Handle] = {}
    for step in range(7):
        for number, (prompt, one, arrival) in enumerate(requests):
            if arrival == step:
                handles[number] = engine.submit(prompt, one)
        engine.step()
    assert run(engine, *(handles[number] for number in range(len(requests)))) == [
        alone(prompt, one) for prompt, one, _ in requests
    ]


@pytest.mark.parametrize("name", ["search", "diverse of one group", "constrained"])
@pytest.mark.parametrize("penalty", [0.0, 1.5])
@pytest.mark.parametrize("ends", [(), (2,)])
def test_full_width_finds_the_best_of_all(name: str, penalty: float, ends: tuple[int, ...]) -> None:
    toy, prompt, word = ToyBackend(vocabulary=4, seed=2), [3, 1], [1, 3]
    strategy: Any = {
        "search": beam_search,
        "diverse of one group": partial(diverse_beam_search, groups=1, diversity_penalty=1.0),
        "constrained": partial(constrained_beam_search, constraints=[PhrasalConstraint(word)]),
    }[name]
    asked = Decoding(
        partial(strategy, width=256, length_penalty=penalty, early_stopping="never"), Stopping(4, ends), branches=256
    )

    def holds(tokens: tuple[int, ...]) -> bool:
        """Whether the word is there, where a token that breaks it does not begin it again."""
        at = 0
        for token in [*prompt, *tokens]:
            at = at + 1 if token == word[at] else 0
            if at == len(word):
                return True
        return False

    everything = [
        tokens
        for length in range(1, 5)
        for tokens in itertools.product(range(4), repeat=length)
        if (tokens[-1] in ends or length == 4) and not set(tokens[:-1]) & set(ends)
    ]
    wanted = [tokens for tokens in everything if name != "constrained" or holds(tokens)]
    [found] = alone(prompt, asked, toy)
    best = max(wanted, key=lambda tokens: total(toy, prompt, tokens) / len(tokens) ** penalty)
    assert found.tokens == best
    assert found.score == pytest.approx(total(toy, prompt, best) / len(best) ** penalty, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(prompt=TEXT, penalty=PENALTIES, ends=st.lists(st.integers(0, 10), max_size=3, unique=True))
def test_diverse_beams_of_one_group_are_beams(prompt: list[int], penalty: float, ends: list[int]) -> None:
    """Where no finished hypothesis is left for want of time, the older and the newer rules give the same."""
    diverse = partial(diverse_beam_search, groups=1, diversity_penalty=3.0)
    found, expected = (
        alone(
            prompt,
            Decoding(
                partial(strategy, width=3, length_penalty=penalty, early_stopping="never"),
                Stopping(7, tuple(ends)),
                branches=3,
                returned=3,
            ),
        )
        for strategy in (diverse, beam_search)
    )
    assert found == expected


def test_biases_act_on_log_probabilities() -> None:
    """The second group's scores are those of the model less the penalty, not normalised again."""
    toy, prompt = ToyBackend(), [1, 2]
    toy.matrix *= 0.2
    strategy = partial(diverse_beam_search, width=2, groups=2, diversity_penalty=1.5)
    asked = Decoding(partial(strategy, length_penalty=0.0, early_stopping=True), Stopping(2), branches=2, returned=2)

    def scores(*tokens: int) -> Any:
        return log_softmax(toy.logits([*prompt, *tokens])[None])[0].astype(np.float64)

    first = int(scores().argmax())
    penalised = scores() - 1.5 * (np.arange(11) == first)
    second = int(penalised.argmax())
    assert first != second
    third = int(scores(first).argmax())
    then = scores(second) - 1.5 * (np.arange(11) == third)
    expected = [(first, third), (second, int(then.argmax()))]
    values = [scores()[first] + scores(first)[third], penalised[second] + then.max()]
    found = alone(prompt, asked, toy)
    assert [hypothesis.tokens for hypothesis in found] == expected
    assert [hypothesis.score for hypothesis in found] == pytest.approx(values, abs=1e-5)


def test_an_unrelated_stop_ends_only_its_own_beam() -> None:
    """A criterion's end counts as an end token does, in beams of all kinds."""

    def seven(tokens: Any, scores: Any) -> bool:
        return int(tokens[0, -1]) == 7

    for name in STRATEGIES:
        asked = decoding(name, stopping=Stopping(8, criteria=(seven,)), returned=1)
        for hypothesis in alone([1, 2], asked):
            assert 7 not in hypothesis.tokens[:-1]
            assert (hypothesis.reason == "criteria") == (hypothesis.tokens[-1] == 7)


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=20, deadline=None)
@given(prompt=TEXT, penalty=PENALTIES, early=EARLY, seed=st.integers(0, 5))
def test_the_trace_is_the_tree_of_beams(name: str, prompt: list[int], penalty: float, early: Any, seed: int) -> None:
    toy = ToyBackend(seed=seed)
    asked = decoding(name, length_penalty=penalty, early_stopping=early, seed=seed)
    engine = Engine(toy)
    handle = engine.submit(prompt, replace(asked, traced=True))
    [results] = run(engine, handle)
    assert results == alone(prompt, asked, toy)
    lanes: dict[int, tuple[tuple[int, ...], float]] = {0: ((), 0.0)}
    ended: dict[tuple[int, ...], set[tuple[str | None, float]]] = {}
    for step, events in itertools.groupby(handle.events, key=lambda event: event.step):
        kept = {}
        for event in events:
            assert isinstance(event, Branched)
            for node in event.candidates:
                tokens, score = lanes[node.parent]
                assert len(tokens) == step
                assert node.score == pytest.approx(score + node.log_probability, abs=1e-6)
                assert (node.fate == "kept") == (node.lane is not None)
                assert (node.fate == "finished") == (node.reason is not None)
                if node.lane is not None:
                    kept[node.lane] = (*tokens, node.token), node.score
                if node.reason is not None:
                    ended.setdefault((*tokens, node.token), set()).add((node.reason, round(node.score, 6)))
                if name == "constrained":
                    assert node.bank is not None
        lanes = kept
        assert len(lanes) <= WIDTH
        assert set(lanes) <= set(range(WIDTH))
    assert not lanes
    for result in results:
        score = (result.score or 0) * len(result.tokens) ** penalty
        assert any(reason == result.reason and abs(score - sum_) < 1e-5 for reason, sum_ in ended[result.tokens])
