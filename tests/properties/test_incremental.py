"""Reading a text in any pieces gives the logits of reading it at once, past every window and kept key too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.decoding.stopping import Stopping
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.wants import Likelihood, Scores, Targets
from loquent.engine import Engine
from loquent.torch.runner import TorchBackend
from properties.models import EVERY, VOCABULARY, tiny

TOLERANCE = 2e-5

texts = st.lists(st.integers(0, VOCABULARY - 1), min_size=30, max_size=70)
sizes = st.lists(st.integers(1, 9), min_size=70, max_size=70)


def ask(model: Any, strategy: Any, text: list[int], **options: Any) -> None:
    engine = Engine(TorchBackend(model), **options)
    # A span that depends on the length must be that of the text alone.
    handle = engine.submit(text, Decoding(strategy, Stopping(0)))
    while engine.step():
        pass
    handle.result()
    assert engine.space.held == 0


@torch.no_grad()
def whole(model: Any, text: list[int]) -> np.ndarray:
    return torch.log_softmax(model(torch.tensor([text])).logits[0], -1).numpy()


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(text=texts, pieces=sizes, page_size=st.sampled_from([3, 16]))
def test_in_any_pieces(name: str, text: list[int], pieces: list[int], page_size: int) -> None:
    rows: dict[int, Any] = {}

    def read(task: Task) -> Strategy:
        sequence, at = task.open(), 0
        for size in pieces:
            tokens = task.prompt[at : at + size]
            if not len(tokens):
                break
            [row] = yield [Read(sequence, tokens, Scores())]
            at += len(tokens)
            rows[at - 1] = row
        task.commit([0])

    ask(tiny(name), read, text, page_size=page_size)
    expected = whole(tiny(name), text)
    assert len(text) - 1 in rows
    for position, row in rows.items():
        np.testing.assert_allclose(np.asarray(row), expected[position], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EVERY)
def test_one_by_one(name: str) -> None:
    text = torch.randint(VOCABULARY, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = []

    def read(task: Task) -> Strategy:
        sequence = task.open()
        for token in task.prompt:
            [row] = yield [Read(sequence, np.array([token]), Scores())]
            rows.append(np.asarray(row))
        task.commit([0])

    ask(tiny(name), read, text)
    np.testing.assert_allclose(np.stack(rows), whole(tiny(name), text), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(text=texts, step_tokens=st.sampled_from([1, 7, 2048]))
def test_likelihoods_in_chunks(name: str, text: list[int], step_tokens: int) -> None:
    answers = []

    def read(task: Task) -> Strategy:
        answers.extend((yield [Read(task.open(), task.prompt, Likelihood())]))
        task.commit([0])

    ask(tiny(name), read, text, step_tokens=step_tokens)
    expected = whole(tiny(name), text)[np.arange(len(text) - 1), text[1:]]
    np.testing.assert_allclose(answers[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=8, deadline=None)
@given(text=texts, step_tokens=st.sampled_from([1, 7, 2048]), given_tokens=st.integers(1, 40))
def test_targets_in_chunks(name: str, text: list[int], step_tokens: int, given_tokens: int) -> None:
    """Those of the last rows alone, of which the last token is not read."""
    answers = []
    first = min(given_tokens, len(text) - 1)

    def read(task: Task) -> Strategy:
        want = (Targets(tuple(text[first:])), Likelihood())
        answers.extend((yield [Read(task.open(), task.prompt, want)]))
        task.commit([0])

    ask(tiny(name), read, text[:-1], step_tokens=step_tokens)
    rows = whole(tiny(name), text[:-1])[first - 1 :]
    scores, _ = answers[0]
    np.testing.assert_allclose(
        scores.log_probabilities, rows[np.arange(len(rows)), text[first:]], rtol=0, atol=TOLERANCE
    )
    np.testing.assert_array_equal(scores.likeliest, rows.argmax(-1) == np.array(text[first:]))
