"""Prompts with a common beginning: read once, whatever else happens, in time that grows with the prompts alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.test_engine import GREEDY, SAMPLE, alone, assert_nothing_held, finish
from engine.toy import ToyBackend
from loquent.cache import Sequence
from loquent.decoding.rules import Custom
from loquent.engine import Engine

START = [1, 2, 3, 4] * 6


def test_what_waits_for_a_prompt_in_chunks_shares_all_of_it() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4, step_tokens=8)
    found = finish(engine, *(engine.submit([*START, 5, token], GREEDY) for token in (6, 7, 8)))
    assert toy.tokens_read == 26 + 2 * 2 + 3 * 11
    assert found == [alone([*START, 5, token], GREEDY) for token in (6, 7, 8)]
    assert_nothing_held(engine)


def test_who_has_less_than_half_in_common_does_not_wait() -> None:
    engine = Engine(ToyBackend(), page_size=4)
    handles = [engine.submit([*START[:4], *([token] * 16)], GREEDY) for token in (6, 7)]
    engine.step()
    assert [len(handle.new_tokens()) for handle in handles] == [1, 1]
    handles = [engine.submit([9, *START[:12], *([token] * 8)], GREEDY) for token in (6, 7)]
    engine.step()
    assert [len(handle.new_tokens()) for handle in handles] == [1, 0]


def test_prompts_that_found_no_room_in_a_step_start_with_what_is_remembered_by_then() -> None:
    toy = ToyBackend()
    engine = Engine(toy, page_size=4, step_tokens=20)
    prompts = [[*START[:4], *([token] * 16)] for token in (6, 7)]  # less than half in common
    found = finish(engine, *(engine.submit(prompt, GREEDY) for prompt in prompts))
    assert toy.tokens_read == 20 + 16 + 2 * 11
    assert found == [alone(prompt, GREEDY) for prompt in prompts]


@pytest.mark.parametrize("how", ["cancelled", "failing"])
def test_who_waits_goes_on_when_the_prompt_ahead_ends_early(how: str) -> None:
    def broken(input_ids: Any, scores: Any) -> Any:
        raise ZeroDivisionError

    engine = Engine(ToyBackend(), page_size=4, step_tokens=8)
    ahead = engine.submit([*START, 5], replace(GREEDY, rules=(Custom((broken,)),)) if how == "failing" else GREEDY)
    waiting = [engine.submit([*START, token], replace(SAMPLE, seed=token)) for token in (6, 7)]
    engine.step()
    if how == "cancelled":
        ahead.cancel()
    found = finish(engine, *waiting)
    assert found == [alone([*START, token], replace(SAMPLE, seed=token)) for token in (6, 7)]
    assert engine._main._sharing is not None
    engine._main._sharing.begin([])
    assert not engine._main._sharing._reading
    assert not engine._main._sharing._reader_of
    assert_nothing_held(engine)


@pytest.mark.parametrize("common", [0, 24])
def test_a_prompts_pages_are_hashed_twice_however_long_it_waits(monkeypatch: pytest.MonkeyPatch, common: int) -> None:
    """Once to find what is remembered, and once as its pages fill; not at every step, nor with every neighbor."""
    hashed = 0
    keys = Sequence.keys

    def counting(sequence: Sequence, tokens: np.ndarray) -> Any:
        nonlocal hashed
        hashed += len(sequence) + len(tokens)
        return keys(sequence, tokens)

    monkeypatch.setattr(Sequence, "keys", counting)
    engine = Engine(ToyBackend(), page_size=4, step_tokens=4)
    handles = [engine.submit([*START[:common], *([token] * (32 - common))], GREEDY) for token in range(8)]
    finish(engine, *handles)
    assert hashed == 8 * 31
