"""The engine's public face: requests of different strategies side by side, streamed, cancelled, and out of time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch

import loquent
from loquent import ArgumentError, ContextLengthError, GenerationConfig, RequestCancelledError, open_engine
from loquent.decoding.trace import Chosen

PROMPT = [5, 6, 7]
REQUESTS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "seed": 8, "top_k": 9, "num_return_sequences": 3},
    {"repetition_penalty": 1.5, "max_new_tokens": 4},
]


def tokens_of(results: Any) -> list[list[int]]:
    return [list(result.tokens) for result in results]


@pytest.fixture
def alone(model: Any) -> list[list[list[int]]]:
    """What each of the requests gives by itself."""
    return [model.generate([PROMPT], **{"max_new_tokens": 9, **asked})[:, len(PROMPT) :].tolist() for asked in REQUESTS]


def submitted(model: Any) -> list[loquent.GenerationHandle]:
    engine = open_engine(model)
    return [engine.submit(PROMPT, GenerationConfig(**{"max_new_tokens": 9, **asked})) for asked in REQUESTS]


def test_requests_side_by_side_give_what_each_gives_alone(model: Any, alone: list[list[list[int]]]) -> None:
    handles = submitted(model)
    assert not any(handle.done for handle in handles)
    assert [tokens_of(handle.result()) for handle in handles] == alone
    assert all(handle.done for handle in handles)
    assert handles[2].result()[0].score is not None
    assert handles[0].result()[0].reason == "length"


def test_each_streams_its_own_rows(model: Any, alone: list[list[list[int]]]) -> None:
    for handle, expected in zip(submitted(model), alone):
        rows: dict[int, list[int]] = {}
        ends = []
        for event in handle.stream():
            rows.setdefault(event.row, []).extend(event.tokens)
            ends += [event.row] if event.finished else []
        assert [rows[row] for row in range(len(expected))] == expected
        assert sorted(ends) == list(range(len(expected)))


def test_threads_share_an_engine(model: Any, alone: list[list[list[int]]]) -> None:
    handles = submitted(model)
    found: dict[int, Any] = {}

    def wait(number: int) -> None:
        found[number] = tokens_of(handles[number].result())

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(len(handles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[number] for number in range(len(handles))] == alone


def test_a_cancelled_request_ends_and_leaves_the_others(model: Any, alone: list[list[list[int]]]) -> None:
    engine, handles = open_engine(model), submitted(model)
    for _ in range(4):
        assert engine.step()
    handles[0].cancel()
    [left] = handles[0].so_far()
    assert left.reason == "cancelled"
    assert 0 < len(left.tokens) < 9
    assert list(left.tokens) == alone[0][0][: len(left.tokens)]
    assert [event.finished for event in handles[0].stream()] == ["cancelled"]
    with pytest.raises(RequestCancelledError):
        handles[0].result()
    assert [tokens_of(handle.result()) for handle in handles[1:]] == alone[1:]
    handles[1].cancel()
    assert tokens_of(handles[1].result()) == alone[1]


def test_a_deadline_ends_a_request_with_what_is_there(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine = open_engine(model)
    slow = [engine.submit(PROMPT, deadline=5, max_new_tokens=30, **asked) for asked in ({}, {"num_beams": 3})]
    free = engine.submit(PROMPT, max_new_tokens=30)
    for _ in range(4):
        engine.step()
    now += 6
    for handle in slow:
        [result] = handle.result()
        assert result.reason == "time"
        assert len(result.tokens) == 5
    assert free.result()[0].reason == "length"
    whole = [model.generate([PROMPT], max_new_tokens=5, **asked)[0, 3:] for asked in ({}, {"num_beams": 3})]
    assert [list(handle.result()[0].tokens) for handle in slow] == [list(row) for row in whole]


def test_a_deadline_ends_a_request_that_has_not_begun(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine = open_engine(model)
    late = engine.submit(PROMPT, deadline=5, max_new_tokens=30, num_beams=3, num_return_sequences=2)
    patient = engine.submit(PROMPT, max_time=5, max_new_tokens=30)
    now += 6
    assert [(result.tokens, result.reason) for result in late.result()] == [((), "time")] * 2
    [result] = patient.result()  # `max_time` is looked at behind each token
    assert (len(result.tokens), result.reason) == (1, "time")
    for wrong in (0, -1.0):
        with pytest.raises(ArgumentError, match="a number of seconds above 0"):
            engine.submit(PROMPT, deadline=wrong)


def test_events_tell_of_each_step(model: Any) -> None:
    handle = open_engine(model).submit(torch.tensor([PROMPT]), events=True, max_new_tokens=4)
    streamed = list(handle.stream())
    assert [type(event) for one in streamed for event in one.trace] == [Chosen] * 4
    assert [one.trace[0].nodes[0].token for one in streamed] == [one.tokens[0] for one in streamed]
    [trace] = handle.trace()
    assert trace.events == tuple(event for one in streamed for event in one.trace)
    assert trace.prompt == tuple(PROMPT)


def test_what_cannot_work_is_refused(model: Any) -> None:
    engine = open_engine(model)
    assert engine.describe() == model.describe_backend()
    with pytest.raises(ArgumentError, match="is a text"):
        engine.submit("Hello")
    with pytest.raises(ArgumentError, match="prompt has 2 rows"):
        engine.submit([PROMPT, PROMPT])
    with pytest.raises(ArgumentError, match="generate\\(\\) has no argument 'beams'"):
        engine.submit(PROMPT, beams=3)
    with pytest.raises(ContextLengthError):
        engine.submit(PROMPT, max_new_tokens=500)
    with pytest.raises(ArgumentError, match="model is a str"):
        open_engine("gpt2")


# --- a config for each row -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        (None, {}, "prompt=None is neither ids nor a text"),
        (3, {}, "prompt=3 is neither ids nor a text"),
        ([], {}, "has no tokens"),
        ([[3], [4, 5]], {}, "prompt has 2 rows"),
        (PROMPT, {"deadline": "soon"}, "deadline='soon' must be a number"),
        (PROMPT, {"streamer": print}, "no argument 'streamer' here"),
    ],
)
def test_what_is_no_request_is_refused(model: Any, prompt: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        open_engine(model).submit(prompt, **arguments)


def test_a_prompt_may_be_a_list_an_array_or_a_tensor(model: Any) -> None:
    expected = model.generate([PROMPT], max_new_tokens=4)[0, 3:].tolist()
    for prompt in (PROMPT, tuple(PROMPT), [PROMPT], torch.tensor(PROMPT), torch.tensor([PROMPT]).numpy()):
        assert tokens_of(open_engine(model).submit(prompt, max_new_tokens=4).result()) == [expected]


def test_rows_have_configs_of_their_own(model: Any, alone: list[list[list[int]]]) -> None:
    configs = [GenerationConfig(**{"max_new_tokens": 9, **asked}) for asked in REQUESTS]
    configs[0].pad_token_id = 2
    found = model.generate([PROMPT] * len(configs), configs)
    expected = [row for rows in alone for row in rows]
    assert found[:, 3:].tolist() == [row + [2] * (9 - len(row)) for row in expected]
    output = model.generate(
        [PROMPT] * len(configs), configs, return_dict_in_generate=True, output_logits=True, output_scores=True
    )
    assert output.sequences.tolist() == found.tolist()
    assert {len(step) for step in output.scores} == {1 + 1 + 3 + 3 + 1}
    scores = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    torch.testing.assert_close((scores.sum(1) / 9)[2:4], output.sequences_scores[2:4])
    assert output.sequences_scores.isnan().tolist() == [True, True, False, False, *[True] * 4]


def test_seeds_and_times_are_of_rows(model: Any) -> None:
    sampled = [GenerationConfig(do_sample=True, seed=seed, max_new_tokens=6) for seed in (4, 9, 4)]
    found = model.generate([PROMPT] * 3, sampled).tolist()
    assert found[0] == found[2] != found[1]
    assert model.generate([PROMPT] * 3, sampled, seed=9).tolist() == [found[1]] * 3
    rows = model.generate(
        [PROMPT] * 2, [GenerationConfig(max_time=1e-9, max_new_tokens=5), GenerationConfig(max_new_tokens=5)]
    )
    assert (rows[0, 4:] == rows[1, 4:]).all().item() is False
    with pytest.raises(ArgumentError, match="generation_config has 2 configs for 3 rows"):
        model.generate([PROMPT] * 3, sampled[:2])
    with pytest.raises(ArgumentError, match="generation_config is an empty list"):
        model.generate([PROMPT], [])
