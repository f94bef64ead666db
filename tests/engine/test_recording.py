"""What is recorded of a request's rows: each row once, as the model gave it and after the rules."""

from __future__ import annotations

import numpy as np

from engine.toy import ToyBackend
from loquent.decoding.recording import Recording
from loquent.decoding.rules import Rule, Temperature
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import one_by_one
from loquent.decoding.task import Decoding, Read, Select, Strategy, Task
from loquent.decoding.wants import Block, Next, Proposal, Rows, Verify
from loquent.engine import Engine, Handle

PROMPT = [3, 1, 4]
ALL = frozenset({"scores", "logits"})


def finished(*decodings: Decoding) -> tuple[ToyBackend, list[Handle]]:
    backend = ToyBackend(seed=2)
    engine = Engine(backend, page_size=4)
    handles = [engine.submit(PROMPT, decoding) for decoding in decodings]
    while engine.step():
        pass
    return backend, handles


def recording_of(handle: Handle) -> Recording:
    assert handle.recording is not None
    return handle.recording


def test_the_rows_of_drafts_that_fall_are_on_no_path() -> None:
    def drafting(task: Task) -> Strategy:
        sequence, feed = task.open(), list(task.prompt)
        while True:
            [verdict] = yield [Read(sequence, [*feed, 5, 6], Verify((Proposal(5), Proposal(6))))]
            sequence.rewind(len(sequence) - 2 + verdict.accepted)
            feed = [verdict.token]
            if task.commit([*[5, 6][: verdict.accepted], verdict.token]):
                return

    rules = (Temperature(0.5),)
    backend, [handle] = finished(Decoding(drafting, Stopping(6), rules, recorded=ALL))
    [result] = handle.result()
    path = recording_of(handle).path(result.tokens)
    assert len(path) == len(result.tokens)
    assert len(recording_of(handle).rows) > len(path)
    for step, row in enumerate(path):
        logits = backend.logits([*PROMPT, *result.tokens[:step]])
        np.testing.assert_allclose(row.logits, logits, rtol=1e-5)
        np.testing.assert_allclose(row.scores, logits / 0.5, rtol=1e-5)


def test_raw_rows_are_the_models_whatever_a_source_makes_of_them() -> None:
    def changing(task: Task) -> Strategy:
        sequence = task.open()
        [block] = yield [Read(sequence, task.prompt, Rows())]
        changed = Block(block.logits * 2, {}, raw=block.logits)
        [token] = yield [Select(sequence, changed, Next(), bias=(np.array([4]), np.array([50.0])))]
        task.commit([token])

    backend, [handle] = finished(Decoding(changing, Stopping(1), recorded=ALL))
    [row] = recording_of(handle).path(handle.result()[0].tokens)
    logits = backend.logits(PROMPT)
    np.testing.assert_allclose(row.logits, logits, rtol=1e-5)
    np.testing.assert_allclose(row.scores, logits * 2 + 50 * (np.arange(11) == 4), rtol=1e-5)


def test_a_neighbour_that_fails_doubles_no_row() -> None:
    class Broken(Rule):
        @classmethod
        def apply(cls, scores: object, rules: object, contexts: object) -> object:
            raise ArithmeticError("broken")

    good = Decoding(one_by_one, Stopping(4), recorded=ALL)
    _, [bad, handle] = finished(Decoding(one_by_one, Stopping(4), (Broken(),)), good)
    assert bad.done
    assert handle.recording is not None
    assert [len(rows) for rows in handle.recording.lanes()] == [1] * 4
    assert bad.recording is None
