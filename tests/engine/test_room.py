"""Requests in stores that are too small for all of them: the newest wait and go on later, and nothing else changes."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.toy import ToyBackend
from loquent.cache import PLAIN, Coding, StoreKind
from loquent.decoding.drafts import ModelDraft
from loquent.decoding.pace import Constant
from loquent.decoding.rules import RepetitionPenalty, Temperature, TopK
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import beam_search, contrastive_search, one_by_one, speculate
from loquent.decoding.task import Decoding, Hypothesis, Read, Strategy, Task
from loquent.decoding.wants import Likelihood
from loquent.engine import Engine, Handle
from loquent.errors import CapacityError, RequestCancelledError

CODED = StoreKind(Coding(bits=4, group=4, residual=6))
GREEDY = Decoding(one_by_one, Stopping(20), (RepetitionPenalty(1.2),))
SAMPLE = Decoding(one_by_one, Stopping(20), (Temperature(0.9), TopK(6)), sampled=True, seed=5)
BEAM = Decoding(
    partial(beam_search, width=3, length_penalty=1.0, early_stopping=False),
    Stopping(12, eos=(2,)),
    branches=3,
    returned=3,
)
CONTRASTIVE = Decoding(partial(contrastive_search, alpha=0.5, count=3, layer=2), Stopping(10), branches=3, own_tokens=1)
MAKERS = [GREEDY, SAMPLE, replace(SAMPLE, seed=6), BEAM, CONTRASTIVE]


def finish(engine: Engine, *handles: Handle) -> list[list[Hypothesis]]:
    while engine.step():
        pass
    return [handle.result() for handle in handles]


def assert_nothing_held(engine: Engine) -> None:
    assert engine.scheduler.idle
    pools = [pool for reader in engine._readers() for pool in reader.space.pools]
    assert not any(pool.held or pool.aside for pool in pools)
    assert engine._budget.taken == sum(pool.capacity * pool.bytes_per_page for pool in pools)


def tokens(results: list[list[Hypothesis]]) -> list[list[tuple[int, ...]]]:
    return [[hypothesis.tokens for hypothesis in result] for result in results]


class Kept:
    """An engine on a toy, and a reader of each kind of store."""

    def __init__(self, window: int | None, **options: Any) -> None:
        toy = ToyBackend(window=window)
        self.engine = Engine(toy, **options)
        self.coded = self.engine.add_reader(toy, CODED)

    def decoding(self, asked: Decoding, kind: StoreKind) -> Decoding:
        return asked if kind == PLAIN else replace(asked, home=self.coded)


def alone(prompt: list[int], asked: Decoding, kind: StoreKind, window: int | None) -> list[Hypothesis]:
    kept = Kept(window, page_size=4)
    [result] = finish(kept.engine, kept.engine.submit(prompt, kept.decoding(asked, kind)))
    assert_nothing_held(kept.engine)
    return result


requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 3), min_size=1, max_size=30),
        st.sampled_from(MAKERS),
        st.sampled_from([PLAIN, PLAIN, CODED]),
        st.integers(0, 12),  # the step at which it arrives
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=None)
@given(requests, st.sampled_from([1, 3, 16]), st.sampled_from([2, 7, 2048]), st.sampled_from([None, 1, 9]))
def test_results_do_not_depend_on_room(
    asked: list[tuple[list[int], Decoding, StoreKind, int]], page_size: int, step_tokens: int, window: int | None
) -> None:
    """As much as the largest of them needs, for all: results are those of each one alone."""
    kept = Kept(window, page_size=page_size, step_tokens=step_tokens)
    engine = kept.engine
    resolved = [kept.decoding(decoding, kind) for _, decoding, kind, _ in asked]
    engine.kv_memory = max(engine.room.most_bytes(len(prompt), one) for (prompt, *_), one in zip(asked, resolved))
    handles: dict[int, Handle] = {}
    for step in range(13):
        for number, (prompt, _, _, arrival) in enumerate(asked):
            if arrival == step:
                handles[number] = engine.submit(prompt, resolved[number])
        engine.step()
    results = finish(engine, *(handles[number] for number in range(len(asked))))
    assert tokens(results) == tokens([alone(prompt, one, kind, window) for prompt, one, kind, _ in asked])
    assert_nothing_held(engine)


@pytest.mark.parametrize("window", [None, 7, 30])
def test_coded_pages_are_seen_by_position_alone(window: int | None) -> None:
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 5
    toy, coding = ToyBackend(window=window), CODED.coding
    assert not np.array_equal(toy.logits(prompt, coding), toy.logits(prompt)) or window == 7
    expected = list(prompt)
    for _ in range(20):
        expected.append(int(toy.logits(expected, coding).argmax()))
    for step_tokens in (1, 5, 13, 2048):
        kept = Kept(window, step_tokens=step_tokens)
        asked = kept.decoding(replace(GREEDY, rules=()), CODED)
        for _ in range(2):  # the second one finds the first one's pages
            [[best]] = finish(kept.engine, kept.engine.submit(prompt, asked))
            assert list(best.tokens) == expected[len(prompt) :]


def test_the_newest_wait_and_go_on() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4, kv_memory=20)
    prompts = [[1, 2, 3] * 5, [3, 1] * 7, [5, 4, 4] * 5]
    handles = [engine.submit(prompt, GREEDY) for prompt in prompts]
    results = finish(engine, *handles)
    assert tokens(results) == tokens([alone(prompt, GREEDY, PLAIN, None) for prompt in prompts])
    evictions = [handle._request.evictions for handle in handles]
    assert evictions[0] == 0
    assert evictions[2] > 0
    assert toy.tokens_read > sum(len(prompt) + 19 for prompt in prompts)  # some were read again
    assert_nothing_held(engine)


def test_what_waits_is_streamed_once() -> None:
    engine = Engine(ToyBackend(), page_size=4, kv_memory=20)
    handles = [engine.submit([number, 2, 3] * 5, GREEDY) for number in range(4)]
    streamed: list[list[int]] = [[] for _ in handles]
    going = True
    while going:
        going = engine.step()
        for handle, seen in zip(handles, streamed):
            seen += handle.new_tokens()
    assert sum(handle._request.evictions for handle in handles) > 0
    assert [tuple(seen) for seen in streamed] == [handle.result()[0].tokens for handle in handles]


def test_waiting_requests_are_cancelled_and_expire() -> None:
    engine = Engine(ToyBackend(), page_size=4, kv_memory=20)
    handles = [engine.submit([number, 2, 3] * 5, GREEDY) for number in range(3)]
    while not handles[2]._request.evictions:
        assert engine.step()
    assert handles[2]._request in engine.scheduler.waiting
    handles[2].cancel()
    finish(engine, *handles[:2])
    with pytest.raises(RequestCancelledError):
        handles[2].result()
    so_far = handles[2].so_far()[0].tokens
    assert so_far == alone([2, 2, 3] * 5, GREEDY, PLAIN, None)[0].tokens[: len(so_far)]
    assert_nothing_held(engine)


def test_rows_that_were_delivered_are_not_delivered_again() -> None:
    """A read of many rows loses its pages between two chunks."""
    prompt = [1, 2, 3, 4, 5] * 6

    def measuring(task: Task) -> Strategy:
        sequence = task.open()
        [gained] = yield [Read(sequence, task.prompt, Likelihood())]
        told.append(gained)
        task.commit([1])

    told: list[np.ndarray] = []
    asked = Decoding(measuring, Stopping(1))
    finish(engine := Engine(ToyBackend()), engine.submit(prompt, asked))
    other = Engine(ToyBackend(), page_size=4, step_tokens=3, kv_memory=13)
    first = other.submit([7] * 8, GREEDY)
    second = other.submit(prompt, asked)
    finish(other, first, second)
    assert second._request.evictions > 0
    np.testing.assert_array_equal(told[0], told[1])


def test_drafts_are_evicted_too() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4)
    reader = engine.add_reader(toy.truncated(1))
    draft = partial(ModelDraft, reader=reader, threshold=0.0)
    drafting = replace(GREEDY, strategy=partial(speculate, draft=draft, pace=partial(Constant, 3)), readers=(reader,))
    prompts = [[number, 2, 3] * 5 for number in range(4)]
    engine.kv_memory = engine.room.most_bytes(15, drafting) + 4
    handles = [engine.submit(prompt, drafting) for prompt in prompts]
    results = finish(engine, *handles)
    assert tokens(results) == tokens([alone(prompt, GREEDY, PLAIN, None) for prompt in prompts])
    assert sum(handle._request.evictions for handle in handles) > 0
    assert_nothing_held(engine)


def test_room_of_one_store_serves_another() -> None:
    """What remembered pages of one kind take is given back for the other."""
    kept = Kept(None, page_size=4)
    engine = kept.engine
    plain, coded = GREEDY, kept.decoding(GREEDY, CODED)
    engine.kv_memory = max(engine.room.most_bytes(40, plain), engine.room.most_bytes(40, coded))
    for asked, kind in [(plain, PLAIN), (coded, CODED), (plain, PLAIN)]:
        result = finish(engine, engine.submit([1, 2, 3, 4] * 10, asked))
        assert tokens(result) == tokens([alone([1, 2, 3, 4] * 10, GREEDY, kind, None)])
    assert_nothing_held(engine)


def test_without_reuse_nothing_is_evicted() -> None:
    engine = Engine(ToyBackend(), page_size=4, kv_memory=20, reuse_prefixes=False)
    handles = [engine.submit([number, 2, 3] * 5, GREEDY) for number in range(4)]
    finish(engine, *handles)
    assert not any(handle._request.evictions for handle in handles)
    assert_nothing_held(engine)


def test_what_cannot_fit_with_its_drafts_is_refused() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4, kv_memory=10)
    reader = engine.add_reader(toy.truncated(1))
    engine.submit([1] * 15, GREEDY).cancel()
    with pytest.raises(CapacityError, match="may need 18 B of keys and values"):
        engine.submit([1] * 15, replace(GREEDY, readers=(reader,)))


class Crowd:
    """1,000 requests of random lengths, strategies, stores, arrivals and cancellations; the same in every run."""

    def __init__(self, window: int | None, limit: int | None) -> None:
        self.kept = Kept(window, page_size=4, step_tokens=64, max_running=24)
        self.engine = self.kept.engine
        choose = random.Random(7)
        self.asked = [
            (
                [choose.randrange(4) for _ in range(choose.randint(1, 20))],
                replace(choose.choice(MAKERS), stopping=Stopping(choose.randint(1, 40))),
                choose.choice([PLAIN, CODED]),
            )
            for _ in range(1000)
        ]
        self.cancelled = {number for number in range(1000) if choose.random() < 0.1}
        resolved = [(prompt, self.kept.decoding(decoding, kind)) for prompt, decoding, kind in self.asked]
        needed = max(self.engine.room.most_bytes(len(prompt), one) for prompt, one in resolved)
        self.engine.kv_memory = limit and max(limit, needed)
        self.handles: list[Handle] = []
        self.most = 0
        going = True
        while going or len(self.handles) < 1000:
            for prompt, one in resolved[len(self.handles) :][: choose.randint(0, 6)]:
                self.handles.append(self.engine.submit(prompt, one))
            for number in self.cancelled:
                if number < len(self.handles) and choose.random() < 0.02:
                    self.handles[number].cancel()
            going = self.engine.step()
            self.most = max(self.most, sum(reader.space.held_bytes for reader in self.engine._readers()))
        assert_nothing_held(self.engine)


@pytest.mark.parametrize("window", [None, 9])
def test_a_thousand_requests_through_a_quarter_of_the_room(window: int | None) -> None:
    free = Crowd(window, None)
    tight = Crowd(window, free.most // 4)
    assert tight.most <= tight.engine.kv_memory < free.most // 2
    assert sum(handle._request.evictions for handle in tight.handles) > 100
    for number, (left, right) in enumerate(zip(free.handles, tight.handles)):
        if number not in tight.cancelled:
            assert tokens([left.result()]) == tokens([right.result()])
        else:  # each as far as it had come
            pairs = zip(left.so_far()[0].tokens, right.so_far()[0].tokens)
            assert all(a == b for a, b in pairs) or left._request.task.decoding.branches > 1
