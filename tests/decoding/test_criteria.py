"""Stopping criteria in transformers' convention, ours and a caller's, and the reasons that the engine gives."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from loquent import ArgumentError, EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria, StoppingCriteriaList
from loquent.decoding.criteria import says_stop
from loquent.decoding.stopping import Stopping

PROMPT = np.array([5, 6], np.int64)


@pytest.mark.parametrize("length", [3, 4, 5])
def test_criteria_agree_with_transformers(length: int) -> None:
    ids = torch.arange(length)[None]
    pairs = [
        (MaxLengthCriteria(4), transformers.MaxLengthCriteria(4)),
        (EosTokenCriteria(3), transformers.EosTokenCriteria(3)),
        (EosTokenCriteria([2, 9]), transformers.EosTokenCriteria([2, 9])),
        (MaxTimeCriteria(9, time.time() - 10), transformers.MaxTimeCriteria(9, time.time() - 10)),
        (MaxTimeCriteria(9), transformers.MaxTimeCriteria(9)),
    ]
    for ours, theirs in pairs:
        assert ours(ids, None) == bool(theirs(ids, None).all())
    assert StoppingCriteriaList([ours for ours, _ in pairs])(ids, None)
    assert not StoppingCriteriaList([MaxLengthCriteria(99)])(ids, None)
    assert not StoppingCriteriaList()(ids, None)


@pytest.mark.parametrize(
    ("answer", "stop"),
    [(True, True), (torch.tensor([True]), True), (torch.tensor(False), False), (np.array([0]), False), ([True], True)],
)
def test_what_a_criterion_may_answer(answer: Any, stop: bool) -> None:
    assert says_stop(answer) is stop


def test_an_answer_for_several_rows_is_refused() -> None:
    with pytest.raises(ArgumentError, match="2 values for one row"):
        says_stop(torch.tensor([True, False]))


def test_the_reasons_and_their_precedence() -> None:
    def even(input_ids: Any, scores: Any) -> bool:
        return bool(input_ids[0, -1] % 2 == 0)

    stopping = Stopping(4, eos=(8, 9), criteria=(even,))
    assert stopping.reason(PROMPT, [1]) is None
    assert stopping.reason(PROMPT, [1, 3, 2]) == "criteria"
    assert stopping.reason(PROMPT, [1, 8]) == "eos"  # also even
    assert stopping.reason(PROMPT, [1, 3, 5, 7]) == "length"
    assert stopping.reason(PROMPT, [8, 3]) is None  # an end token of the past does not count
    assert Stopping(4, deadline=time.monotonic() - 1).reason(PROMPT, [1]) == "time"
    assert Stopping(4, deadline=time.monotonic() + 60).reason(PROMPT, [1]) is None


def test_criteria_see_the_prompt_and_what_was_generated() -> None:
    seen = []
    stopping = Stopping(4, criteria=(lambda ids, scores: bool(seen.append((ids.tolist(), scores))),))
    assert stopping.reason(PROMPT, [1, 2]) is None
    assert seen == [([[5, 6, 1, 2]], None)]


def test_a_list_knows_its_least_length() -> None:
    criteria = StoppingCriteriaList([MaxLengthCriteria(9), MaxTimeCriteria(1.0), MaxLengthCriteria(7)])
    assert criteria.max_length == 7
    assert StoppingCriteriaList([MaxTimeCriteria(1.0)]).max_length is None
