"""A request's result depends on the model and the request alone, whatever else runs and however it is run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from loquent.decoding.rules import NoRepeatNgrams, RepetitionPenalty, Temperature, TopK, TopP
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import (
    beam_sampling,
    beam_search,
    constrained_beam_search,
    diverse_beam_search,
    one_by_one,
)
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.wants import Next
from loquent.engine import Engine, Handle
from loquent.torch.runner import TorchBackend
from properties.models import EVERY, VOCABULARY, tiny

NEW = 10
ENDS = (3, 9)


def forked(task: Task) -> Strategy:
    """One by one, but every token is read by a fork, and a rival that goes another way shares its pages meanwhile."""
    sequence, feed = task.open(), task.prompt
    while True:
        rival = sequence.fork()
        other = np.concatenate([feed[:-1], (feed[-1:] + 1) % VOCABULARY])
        [_, token] = yield [Read(rival, other, Next()), Read(sequence, feed, Next())]
        if task.commit([token]):
            return
        twin = sequence.fork()
        rival.rewind(max(len(rival) - 1, 0))
        rival.close()
        sequence.close()
        sequence, feed = twin, np.array([token], np.int64)


def rereading(task: Task) -> Strategy:
    """One by one, but half of what was read is forgotten and read again with every third token."""
    sequence, feed = task.open(), task.prompt
    while True:
        [token] = yield [Read(sequence, feed, Next())]
        if task.commit([token]):
            return
        feed = np.array([token], np.int64)
        if len(task.output) % 3 == 0:
            kept = len(sequence) // 2
            feed = np.concatenate([sequence.tokens[kept:], feed])
            sequence.rewind(kept)


GREEDY = Decoding(one_by_one, Stopping(NEW, eos=ENDS))
SAMPLED = Decoding(one_by_one, Stopping(NEW), (Temperature(1.1), TopK(12), TopP(0.9)), sampled=True, seed=4)
RULED = Decoding(one_by_one, Stopping(NEW), (RepetitionPenalty(1.3), NoRepeatNgrams(2)))
BEAMS = Decoding(
    partial(beam_search, width=3, length_penalty=1.0, early_stopping=False),
    Stopping(NEW, eos=ENDS),
    branches=3,
    returned=2,
)
_KINDS = (
    partial(diverse_beam_search, groups=2, diversity_penalty=0.6, filler=0),
    partial(constrained_beam_search, constraints=[PhrasalConstraint([4, 5]), DisjunctiveConstraint([[6], [7, 8]])]),
    beam_sampling,
)
BEAM_KINDS = [
    replace(BEAMS, strategy=partial(kind, width=4, length_penalty=0.5, early_stopping=False), branches=4, seed=6)
    for kind in _KINDS
]
FORKED = Decoding(forked, Stopping(NEW), branches=3)
REREADING = Decoding(rereading, Stopping(NEW), (NoRepeatNgrams(2),))
DECODINGS = [GREEDY, SAMPLED, replace(SAMPLED, seed=5), RULED, BEAMS, *BEAM_KINDS, FORKED, REREADING]

Asked = tuple[list[int], Decoding, int]

stems = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


@st.composite
def requests(draw: st.DrawFn) -> list[Asked]:
    """Prompts of which some share a beginning, the steps at which they arrive, and what they ask for."""
    stem = draw(stems)
    asked = []
    for _ in range(draw(st.integers(2, 5))):
        own = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6))
        prompt = stem[: draw(st.integers(0, len(stem)))] + own
        asked.append((prompt, draw(st.sampled_from(DECODINGS)), draw(st.integers(0, 8))))
    return asked


def finish(engine: Engine, handles: list[Handle]) -> list[list[tuple[int, ...]]]:
    while engine.step():
        pass
    return [[hypothesis.tokens for hypothesis in handle.result()] for handle in handles]


def alone(model: Any, prompt: list[int], decoding: Decoding) -> list[tuple[int, ...]]:
    engine = Engine(TorchBackend(model), reuse_prefixes=False)
    [result] = finish(engine, [engine.submit(prompt, decoding)])
    return result


def assert_nothing_held(engine: Engine) -> None:
    assert engine.scheduler.idle
    assert engine.space.held == 0
    assert not engine.space.aside
    engine.release_memory()
    assert engine.store_bytes == 0


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(
    asked=requests(),
    page_size=st.sampled_from([2, 5, 16]),
    step_tokens=st.sampled_from([3, 9, 2048]),
    reuse=st.booleans(),
)
def test_alone_or_in_any_company(name: str, asked: list[Asked], page_size: int, step_tokens: int, reuse: bool) -> None:
    """Alone = batched = in chunks = on a shared beginning = arriving at any step."""
    model = tiny(name)
    engine = Engine(TorchBackend(model), page_size=page_size, step_tokens=step_tokens, reuse_prefixes=reuse)
    handles: dict[int, Handle] = {}
    for step in range(9):
        for number, (prompt, decoding, arrival) in enumerate(asked):
            if arrival == step:
                handles[number] = engine.submit(prompt, decoding)
        engine.step()
    found = finish(engine, [handles[number] for number in range(len(asked))])
    assert found == [alone(model, prompt, decoding) for prompt, decoding, _ in asked]
    assert_nothing_held(engine)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=10, deadline=None)
@given(prompt=stems)
def test_forks_and_rereading_change_nothing(name: str, prompt: list[int]) -> None:
    model = tiny(name)
    plain = alone(model, prompt, Decoding(one_by_one, Stopping(NEW)))
    assert alone(model, prompt, FORKED) == plain
    assert alone(model, prompt, replace(REREADING, rules=())) == plain


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(
    prompts=st.lists(stems, min_size=2, max_size=4),
    how=st.sampled_from(
        [
            {},
            {"do_sample": True, "temperature": 1.3, "top_p": 0.9, "seed": 3},
            {"num_beams": 3, "num_return_sequences": 2},
            {"num_beams": 3, "num_return_sequences": 2, "do_sample": True, "top_k": 9, "seed": 3},
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "num_return_sequences": 4},
            {"num_beams": 3, "force_words_ids": [[4, 5], [[6], [7, 8]]]},
            {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
        ]
    ),
)
def test_generating_and_streaming(name: str, prompts: list[list[int]], how: dict[str, Any]) -> None:
    """Rows padded on either side = ragged rows = each row alone = streamed events, pieced together."""
    model, copies = tiny(name), how.get("num_return_sequences", 1)
    arguments = {"max_new_tokens": NEW, "eos_token_id": list(ENDS), "pad_token_id": 0, **how}
    width = max(map(len, prompts))
    left = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    right = torch.tensor([row + [0] * (width - len(row)) for row in prompts])
    lengths = torch.tensor([len(row) for row in prompts])[:, None]
    masks = torch.arange(width) >= width - lengths, torch.arange(width) < lengths

    def new(result: Any) -> list[list[int]]:
        return [row + [0] * (NEW - len(row)) for row in result[:, width:].tolist()]

    found = new(model.generate(left, attention_mask=masks[0], **arguments))
    assert new(model.generate(right, attention_mask=masks[1].long(), **arguments)) == found
    ragged = model.generate(prompts, attention_mask=[[1] * len(row) for row in prompts], **arguments)
    assert new(ragged) == found
    streamed: list[list[int]] = [[] for _ in range(len(prompts) * copies)]
    for event in model.stream(left, attention_mask=masks[0], **arguments):
        streamed[event.row] += event.tokens
    assert [row + [0] * (NEW - len(row)) for row in streamed] == found
    for number, prompt in enumerate(prompts):
        row = model.generate([prompt], attention_mask=[[1] * len(prompt)], **arguments)[:, len(prompt) :].tolist()
        expected = found[number * copies : (number + 1) * copies]
        assert [tokens + [0] * (NEW - len(tokens)) for tokens in row] == expected
    assert model._engine_slot.engine.space.held == 0


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(asked=requests(), failing=st.integers(0, 4), cancelled=st.integers(0, 4), step=st.integers(0, 12))
def test_every_page_comes_back(name: str, asked: list[Asked], failing: int, cancelled: int, step: int) -> None:
    """Requests that fail, are cancelled, or end share pages with others that go on, and whose results they leave."""

    def fail(tokens: Any, scores: Any) -> bool:
        if tokens.shape[1] > 4 + step:
            raise LookupError("a criterion that fails")
        return False

    model = tiny(name)
    engine = Engine(TorchBackend(model), page_size=4)
    handles = []
    for number, (prompt, decoding, _) in enumerate(asked):
        criteria = (fail,) if number == failing else ()
        handles.append(engine.submit(prompt, replace(decoding, stopping=replace(decoding.stopping, criteria=criteria))))
    for _ in range(step):
        engine.step()
    if cancelled < len(handles):
        handles[cancelled].cancel()
    while engine.step():
        pass
    for number, (handle, (prompt, decoding, _)) in enumerate(zip(handles, asked)):
        if number not in (failing, cancelled):
            assert [hypothesis.tokens for hypothesis in handle.result()] == alone(model, prompt, decoding)
    assert_nothing_held(engine)
