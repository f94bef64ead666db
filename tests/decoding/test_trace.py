"""What strategies tell of their way: the numbers of the trace against those of the toy model."""

from __future__ import annotations

import numpy as np
import pytest

from engine.toy import ToyBackend
from loquent.decoding.rules import Temperature, TopK
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import one_by_one
from loquent.decoding.task import Decoding, Read, Strategy, Task
from loquent.decoding.trace import ALTERNATIVES, Chosen
from loquent.decoding.wants import Proposal, Verdict, Verify
from loquent.engine import Engine, Handle

PROMPT = [3, 1, 4]


def run(decoding: Decoding) -> tuple[ToyBackend, Handle]:
    backend = ToyBackend(vocabulary=13, seed=1)
    engine = Engine(backend, page_size=4)
    handle = engine.submit(PROMPT, decoding)
    while engine.step():
        pass
    handle.result()
    return backend, handle


def log_probabilities(row: np.ndarray) -> np.ndarray:
    shifted = row - row.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


@pytest.mark.parametrize("sampled", [False, True])
def test_one_by_one_tells_the_chosen_token_and_the_best_others(sampled: bool) -> None:
    rules = (Temperature(0.8), TopK(4)) if sampled else ()
    decoding = Decoding(one_by_one, Stopping(6), rules, sampled=sampled, seed=7)
    _, silent = run(decoding)
    backend, handle = run(Decoding(one_by_one, Stopping(6), rules, sampled=sampled, seed=7, traced=True))
    tokens = list(handle.result()[0].tokens)
    assert tokens == list(silent.result()[0].tokens)
    assert silent.events == []
    total = 0.0
    for step, event in enumerate(handle.events):
        row = backend.logits(PROMPT + tokens[:step]).copy()
        if sampled:
            row /= 0.8
            row[row < np.sort(row)[-4]] = -np.inf
        expected = log_probabilities(row)
        assert isinstance(event, Chosen)
        assert event.step == step
        total += expected[tokens[step]]
        assert event.node.token == tokens[step]
        assert event.node.log_probability == pytest.approx(expected[tokens[step]], abs=1e-5)
        assert event.node.score == pytest.approx(total, abs=1e-5)
        others = [int(token) for token in np.argsort(-expected) if token != tokens[step] and expected[token] > -np.inf]
        assert [node.token for node in event.alternatives] == others[:ALTERNATIVES]
        assert [node.fate for node in event.nodes[1:]] == ["pruned"] * (len(event.nodes) - 1)
        for node in event.alternatives:
            assert node.log_probability == pytest.approx(expected[node.token], abs=1e-5)
    assert [event.nodes[0].fate for event in handle.events] == ["kept"] * 5 + ["finished"]
    assert handle.events[-1].nodes[0].reason == "length"


def test_a_weighed_verdict_tells_the_log_probabilities_of_drafts_and_of_what_follows() -> None:
    verdicts: list[Verdict] = []
    backend = ToyBackend(vocabulary=13, seed=1)
    right = int(backend.logits(PROMPT).argmax())
    drafts = [right, (int(backend.logits([*PROMPT, right]).argmax()) + 1) % 13, 5]

    def verify(task: Task) -> Strategy:
        want = Verify(tuple(Proposal(token) for token in drafts), weighed=True)
        [verdict] = yield [Read(task.open(), [*PROMPT, *drafts], want)]
        verdicts.append(verdict)
        task.commit([verdict.token])

    run(Decoding(verify, Stopping(1)))
    [verdict] = verdicts
    assert verdict.accepted == 1
    rows = [log_probabilities(backend.logits(PROMPT + drafts[:count])) for count in range(3)]
    expected = [*(row[token] for row, token in zip(rows, drafts)), rows[1][verdict.token]]
    assert verdict.scores == pytest.approx(expected, abs=1e-5)
