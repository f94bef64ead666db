"""The engine on a toy model: results, sharing, accounting, failures and cancellation."""

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
from loquent.decoding.random import Purpose, uniform
from loquent.decoding.rules import Custom, Temperature, TopK
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import beam_search, one_by_one
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.wants import Likelihood, Scores, Top
from loquent.engine import Engine, Handle
from loquent.errors import ArgumentError, CapacityError, RequestCancelledError

GREEDY = Decoding(one_by_one, Stopping(12))
SAMPLE = Decoding(one_by_one, Stopping(12), (Temperature(0.9), TopK(6)), sampled=True, seed=5)
BEAM = Decoding(
    partial(beam_search, width=3, length_penalty=1.0, early_stopping=False),
    Stopping(9, eos=(2,)),
    branches=3,
    returned=3,
)


def finish(engine: Engine, *handles: Handle) -> list[list[tuple[int, ...]]]:
    while engine.step():
        pass
    return [[hypothesis.tokens for hypothesis in handle.result()] for handle in handles]


def alone(prompt: list[int], decoding: Decoding, **options: Any) -> list[tuple[int, ...]]:
    engine = Engine(ToyBackend(), **options)
    [result] = finish(engine, engine.submit(prompt, decoding))
    assert_nothing_held(engine)
    return result


def assert_nothing_held(engine: Engine) -> None:
    assert engine.scheduler.idle
    assert engine.space.held == 0
    assert not engine.space.aside


def plain_greedy(prompt: list[int], count: int, **kwargs: Any) -> tuple[int, ...]:
    toy, tokens = ToyBackend(**kwargs), list(prompt)
    for _ in range(count):
        tokens.append(int(toy.logits(tokens).argmax()))
    return tuple(tokens[len(prompt) :])


def test_greedy_is_the_argmax_of_the_model() -> None:
    assert alone([1, 2, 3], GREEDY) == [plain_greedy([1, 2, 3], 12)]


def test_sampling_follows_its_seed_and_position_alone() -> None:
    toy, tokens = ToyBackend(), [4, 4, 1]
    for _ in range(12):
        scores = toy.logits(tokens).astype(np.float64) / 0.9
        weights = np.where(scores < np.sort(scores)[-6], 0.0, np.exp(scores - scores.max()))
        point = uniform(5, len(tokens), Purpose.DRAW) * weights.sum()
        tokens.append(int(np.searchsorted(np.cumsum(weights), point, side="right")))
    assert alone([4, 4, 1], SAMPLE) == [tuple(tokens[3:])]


def test_a_full_beam_is_exhaustive_search() -> None:
    toy = ToyBackend(vocabulary=5)
    decoding = Decoding(
        partial(beam_search, width=125, length_penalty=0.0, early_stopping="never"), Stopping(4), branches=125
    )
    engine = Engine(toy)
    [[best]] = finish(engine, engine.submit([3, 1], decoding))

    def total(tokens: tuple[int, ...]) -> float:
        rows = (log_softmax(toy.logits([3, 1, *tokens[:at]])[None])[0, token] for at, token in enumerate(tokens))
        return float(sum(rows))

    assert best == max(itertools.product(range(5), repeat=4), key=total)


def test_beams_hold_no_more_than_live_hypotheses() -> None:
    engine = Engine(ToyBackend(), page_size=4)
    handle = engine.submit(list(range(10)) * 3, BEAM)
    promised = engine.scheduler.waiting[0].most_bytes
    most = 0
    while engine.step():
        most = max(most, engine.space.held)
    assert handle.result()
    assert most <= promised
    assert most <= 7 + 3 * 4  # the prompt's seven whole pages once, and at most four of its own for each beam


requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 3), min_size=1, max_size=30),
        st.sampled_from([GREEDY, SAMPLE, replace(SAMPLE, seed=6), BEAM]),
        st.integers(0, 12),  # the step at which it arrives
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=None)
@given(requests, st.sampled_from([1, 3, 16]), st.sampled_from([2, 7, 2048]), st.booleans(), st.booleans())
def test_results_do_not_depend_on_company(
    asked: list[tuple[list[int], Decoding, int]], page_size: int, step_tokens: int, reuse: bool, tight: bool
) -> None:
    """Alone = batched = chunked = with reused prefixes = arriving at any step = in a store that is often full."""
    needed = [Engine(ToyBackend(), page_size=page_size).room.most_bytes(len(p), d) for p, d, _ in asked]
    engine = Engine(
        ToyBackend(),
        page_size=page_size,
        step_tokens=step_tokens,
        reuse_prefixes=reuse,
        kv_memory=max(needed) + 2 if tight else None,
    )
    handles: dict[int, Handle] = {}
    for step in range(13):
        for number, (prompt, decoding, arrival) in enumerate(asked):
            if arrival == step:
                handles[number] = engine.submit(prompt, decoding)
        engine.step()
    results = finish(engine, *(handles[number] for number in range(len(asked))))
    assert results == [alone(prompt, decoding) for prompt, decoding, _ in asked]
    assert_nothing_held(engine)


def test_a_shared_beginning_is_read_once() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4)
    prompt = [1, 2, 3, 4] * 8
    together = finish(engine, *(engine.submit(prompt, replace(SAMPLE, seed=seed)) for seed in range(4)))
    assert toy.tokens_read == 32 + 3 * 4 + 4 * 11  # one whole prompt, three last pages, and the new tokens
    assert together == [alone(prompt, replace(SAMPLE, seed=seed)) for seed in range(4)]


def test_long_prompts_do_not_stop_the_others() -> None:
    engine = Engine(ToyBackend(), step_tokens=8)
    short = engine.submit([1], GREEDY)
    engine.step()
    engine.submit([1, 2, 3] * 40, GREEDY)
    before = len(short.new_tokens())
    for _ in range(5):
        engine.step()
    assert len(short.new_tokens()) == 5
    assert before == 1


def test_a_failing_request_fails_alone() -> None:
    def broken(input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] > 5:
            raise ZeroDivisionError("broken processor")
        return scores

    engine = Engine(ToyBackend())
    good = engine.submit([1, 2], GREEDY)
    bad = engine.submit([1, 2], replace(GREEDY, rules=(Custom((broken,)),)))
    [result] = finish(engine, good)
    assert result == alone([1, 2], GREEDY)
    with pytest.raises(ZeroDivisionError, match="broken processor"):
        bad.result()
    with pytest.raises(ZeroDivisionError):
        bad.new_tokens()
    assert_nothing_held(engine)


def test_a_failing_criterion_or_strategy_fails_its_request() -> None:
    def broken(task: Task) -> Strategy:
        yield [Read(task.open(), task.prompt, Top(2))]
        raise LookupError("broken strategy")

    engine = Engine(ToyBackend())
    good, bad = engine.submit([3], BEAM), engine.submit([3], Decoding(broken, Stopping(5)))
    assert finish(engine, good) == [alone([3], BEAM)]
    with pytest.raises(LookupError, match="broken strategy"):
        bad.result()
    assert_nothing_held(engine)


def test_pages_that_a_failed_requests_sequences_shared_are_cleared_too() -> None:
    def broken(task: Task) -> Strategy:
        sequence = task.open()
        yield [Read(sequence, task.prompt, Top(2))]
        twins = [sequence.fork(), sequence.fork()]
        yield [Read(twin, np.array([number]), Top(2)) for number, twin in enumerate(twins)]
        raise LookupError("broken strategy")

    engine = Engine(ToyBackend(), page_size=4)
    other = engine.submit([1, 2, 3, 4, 5], GREEDY)
    handle = engine.submit(range(10), Decoding(broken, Stopping(5), branches=3))
    engine.step()
    held = {int(page) for sequence in handle._request.sequences for page in sequence.tables[0]}
    finish(engine, other)
    assert len(held) == 3
    assert not np.nan_to_num(engine._main.store.content[0][sorted(held)]).any()
    with pytest.raises(LookupError):
        handle.result()
    assert_nothing_held(engine)


def test_a_strategy_that_reads_wrongly_fails_alone() -> None:
    def closed(task: Task) -> list[Read]:
        sequence = task.open()
        sequence.close()
        return [Read(sequence, task.prompt, Top(2))]

    def twice(task: Task) -> list[Read]:
        sequence = task.open()
        return [Read(sequence, task.prompt, Top(2)), Read(sequence, task.prompt, Top(2))]

    def no_tokens(task: Task) -> list[Read]:
        return [Read(task.open(), task.prompt[:0], Top(2))]

    def unknown(task: Task) -> list[Read]:
        return [Read(task.open(), task.prompt, "everything")]  # type: ignore[arg-type]

    for reads, message in (
        (closed, "had closed"),
        (twice, "each sequence once"),
        (no_tokens, "read no tokens"),
        (unknown, "wants 'everything'"),
        (lambda task: [], "one thing or more"),
    ):

        def strategy(task: Task, reads: Any = reads) -> Strategy:
            yield reads(task)

        engine = Engine(ToyBackend())
        good, bad = engine.submit([3], GREEDY), engine.submit([3], Decoding(strategy, Stopping(5)))
        assert finish(engine, good) == [alone([3], GREEDY)]
        with pytest.raises(ValueError, match=message):
            bad.result()
        assert_nothing_held(engine)


def test_an_interrupt_ends_what_it_interrupted() -> None:
    class Interrupted(ToyBackend):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    engine = Engine(Interrupted())
    handle = engine.submit([1], GREEDY)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert handle.done
    assert not engine.step()
    assert_nothing_held(engine)


def test_a_broken_pass_fails_what_was_in_it() -> None:
    class Breaking(ToyBackend):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            raise MemoryError("no memory left")

    engine = Engine(Breaking())
    handle = engine.submit([1], GREEDY)
    assert not engine.step()
    with pytest.raises(MemoryError):
        handle.result()
    assert_nothing_held(engine)


def test_rules_that_leave_nothing_are_refused() -> None:
    def nothing(input_ids: Any, scores: Any) -> Any:
        return scores * 0 - np.inf

    for decoding in (GREEDY, SAMPLE):
        engine = Engine(ToyBackend())
        handle = engine.submit([1], replace(decoding, rules=(Custom((nothing,)),)))
        engine.step()
        with pytest.raises(ArgumentError, match="leave no token"):
            handle.result()


def test_cancelling_frees_everything_and_disturbs_nobody() -> None:
    engine = Engine(ToyBackend(), max_running=2)
    first, second, third = (
        engine.submit([number], decoding) for number, decoding in ((1, BEAM), (2, GREEDY), (3, GREEDY))
    )
    engine.step()
    first.cancel()
    first.cancel()
    third.cancel()
    assert finish(engine, second) == [alone([2], GREEDY)]
    for cancelled in (first, third):
        with pytest.raises(RequestCancelledError):
            cancelled.result()
    assert_nothing_held(engine)


def test_a_request_may_be_cancelled_by_what_it_calls() -> None:
    engine = Engine(ToyBackend())
    cancelled: list[Handle] = []

    def stop(tokens: np.ndarray, scores: Any) -> bool:
        if tokens.shape[1] == 5:
            cancelled[0].cancel()
        return False

    cancelled.append(engine.submit([1, 2, 3], replace(GREEDY, stopping=Stopping(12, criteria=(stop,)))))
    stayed = engine.submit([3, 2, 1], GREEDY)
    assert finish(engine, stayed) == [[plain_greedy([3, 2, 1], 12)]]
    assert cancelled[0].done
    assert cancelled[0].new_tokens() == list(plain_greedy([1, 2, 3], 2))
    with pytest.raises(RequestCancelledError):
        cancelled[0].result()
    assert_nothing_held(engine)


def test_what_waits_for_a_shared_beginning_goes_on_when_the_weights_change(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = ToyBackend()
    engine = Engine(backend, page_size=2, step_tokens=4)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    handles = [engine.submit(prompt, GREEDY), engine.submit(prompt, GREEDY)]
    engine.step()
    monkeypatch.setattr(backend, "weights_changed", lambda: True)
    engine.refresh()
    for _ in range(40):
        engine.step()
    assert [handle.result()[0].tokens for handle in handles] == [plain_greedy(prompt, 12)] * 2
    assert_nothing_held(engine)


def test_what_cannot_fit_is_refused_up_front() -> None:
    engine = Engine(ToyBackend(), page_size=4, kv_memory=8)
    with pytest.raises(CapacityError, match="kv_memory"):
        engine.submit([1] * 30, GREEDY)
    with pytest.raises(CapacityError, match="3 sequences"):
        engine.submit([1] * 20, BEAM)
    assert finish(engine, engine.submit([1] * 20, GREEDY)) == [alone([1] * 20, GREEDY)]


def test_likelihood_and_scores_are_the_models() -> None:
    answers: list[Any] = []
    tokens = np.array([3, 1, 4, 1, 5, 9, 2, 6])

    def ask(task: Task) -> Strategy:
        sequence = task.open()
        [likelihood] = yield [Read(sequence, task.prompt, Likelihood())]
        [row] = yield [Read(sequence, np.array([7]), Scores())]
        answers.extend([likelihood, row])
        task.commit([0])

    engine = Engine(ToyBackend(), step_tokens=3, page_size=2)
    finish(engine, engine.submit(tokens, Decoding(ask, Stopping(1))))
    toy = ToyBackend()
    rows = [log_softmax(toy.logits(tokens[:at])[None])[0] for at in range(1, 8)]
    np.testing.assert_allclose(answers[0], [row[token] for row, token in zip(rows, tokens[1:])], rtol=1e-5)
    np.testing.assert_allclose(answers[1], log_softmax(toy.logits([*tokens, 7])[None])[0], rtol=1e-5)


def test_a_sliding_context_goes_on_forever() -> None:
    decoding = Decoding(one_by_one, Stopping(40), context=8)
    [result] = alone([1, 2, 3], decoding)
    toy, context, expected = ToyBackend(), [1, 2, 3], []
    for _ in range(40):
        if len(context) > 8:
            context = context[-5:]
        token = int(toy.logits(context).argmax())
        expected.append(token)
        context.append(token)
    assert result == tuple(expected)


def test_a_backend_that_is_not_incremental_reads_everything_again() -> None:
    class Whole(ToyBackend):
        def run(self, store: Any, segments: Any, hidden_layers: Any = ()) -> Any:
            assert all(segment.start == 0 for segment in segments)
            return super().run(store, segments)

    toy = Whole()
    toy.incremental = False
    engine = Engine(toy, step_tokens=4)
    assert finish(engine, engine.submit([1, 2, 3] * 3, GREEDY)) == [alone([1, 2, 3] * 3, GREEDY)]


def test_memory_is_given_back() -> None:
    engine = Engine(ToyBackend(), page_size=4)
    finish(engine, engine.submit([1, 2] * 20, GREEDY))
    assert engine.store_bytes > 0
    assert engine.space.remembered > 0
    engine.release_memory()
    assert engine.store_bytes == 0
    assert finish(engine, engine.submit([1, 2] * 20, GREEDY)) == [alone([1, 2] * 20, GREEDY)]


def test_a_request_whose_numbers_break_leaves_none_of_them_behind() -> None:
    engine = Engine(ToyBackend(), page_size=4)
    handle = engine.submit([1, 2, 3] * 5, GREEDY)
    engine.step()
    pages = handle._request.sequences[0].tables[0].tolist()
    engine._main.store.content[0][pages] = np.nan
    handle._request.fail(ArithmeticError("broken numbers"))
    assert not np.isnan(engine._main.store.content[0][pages]).any()
    assert finish(engine, engine.submit([1, 2, 3] * 5, GREEDY)) == [alone([1, 2, 3] * 5, GREEDY)]
    assert_nothing_held(engine)
