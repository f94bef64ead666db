"""Streamers in transformers' protocol, and our own streams of events: order, rows of different lengths, early ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from loquent import RequestCancelledError
from loquent.decoding.trace import Branched

IDS = torch.tensor([[5, 6, 7]])
PROMPTS = [[5, 6, 7], [8, 9], [12, 30]]
PAD = 1


class Recorder:
    """Notes every call, as a streamer written for transformers would get them."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.fail_at, self.error = fail_at, error

    def put(self, value: Any) -> None:
        assert value.device.type == "cpu"
        self.calls.append((tuple(value.shape), value.dtype, value.tolist()))
        if len(self.calls) == self.fail_at:
            raise self.error

    def end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize(
    "asked",
    [
        {"max_new_tokens": 1},
        {"max_new_tokens": 9},
        {"max_new_tokens": 9, "eos_token_id": [28, 14]},
        {"max_new_tokens": 5, "num_beams": 1, "repetition_penalty": 1.5},
    ],
)
def test_the_calls_are_those_of_transformers(pair: tuple[Any, Any], model: Any, asked: dict[str, Any]) -> None:
    _, theirs = pair
    found, expected = Recorder(), Recorder()
    result = model.generate(IDS, streamer=found, pad_token_id=PAD, **asked)
    theirs.generate(IDS, attention_mask=torch.ones_like(IDS), streamer=expected, pad_token_id=PAD, **asked)
    assert found.calls == expected.calls
    assert [call[2][0] for call in found.calls[1:-1]] == result[0, 3:].tolist()


@pytest.fixture
def ending(model: Any) -> tuple[dict[str, Any], list[list[int]]]:
    """Arguments with which the rows of PROMPTS end at different times, and each row's tokens."""
    whole = model.generate(PROMPTS, max_new_tokens=12, pad_token_id=PAD)[:, 3:].tolist()
    end = whole[0][2]
    rows = [row[: row.index(end) + 1] if end in row else row for row in whole]
    assert len({len(row) for row in rows}) > 1
    return {"max_new_tokens": 12, "eos_token_id": end, "pad_token_id": PAD}, rows


def test_rows_that_end_early_give_padding(model: Any, ending: tuple[dict[str, Any], list[list[int]]]) -> None:
    arguments, rows = ending
    recorder = Recorder()
    result = model.generate(PROMPTS, streamer=recorder, **arguments)
    assert recorder.calls[0] == ((3, 3), torch.int64, result[:, :3].tolist())
    assert recorder.calls[-1] == "end"
    columns = [call[2] for call in recorder.calls[1:-1]]
    assert columns == result[:, 3:].T.tolist()
    assert all(call[0] == (3,) for call in recorder.calls[1:-1])
    assert len(columns) == max(map(len, rows))


def test_several_samples_of_a_prompt(pair: tuple[Any, Any], model: Any) -> None:
    """The prompts come once, as in transformers; then a token for each of the result's rows."""
    recorder, theirs = Recorder(), Recorder()
    arguments = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 4, "pad_token_id": PAD}
    result = model.generate([[5, 6], [7, 8]], seed=1, streamer=recorder, **arguments)
    ids = torch.tensor([[5, 6], [7, 8]])
    pair[1].generate(ids, attention_mask=torch.ones_like(ids), streamer=theirs, **arguments)
    assert [call[:2] for call in recorder.calls] == [call[:2] for call in theirs.calls]
    assert recorder.calls[0] == theirs.calls[0]
    assert [call[2] for call in recorder.calls[1:-1]] == result[:, 2:].T.tolist()


def test_beams_are_put_when_they_are_known(model: Any) -> None:
    recorder = Recorder()
    result = model.generate(IDS, streamer=recorder, num_beams=3, max_new_tokens=5)
    assert [call[2] for call in recorder.calls[1:-1]] == result[:, 3:].T.tolist()
    assert recorder.calls[-1] == "end"


@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_a_streamer_that_fails_cancels_the_generation(model: Any, fail_at: int) -> None:
    recorder = Recorder(fail_at, BrokenPipeError("left"))
    with pytest.raises(BrokenPipeError, match="left"):
        model.generate(PROMPTS, streamer=recorder, max_new_tokens=12)
    assert len(recorder.calls) == fail_at + 1
    assert recorder.calls[-1] == "end"
    engine = model._engine_slot.engine
    assert engine.scheduler.idle
    assert engine.space.held == 0


@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_a_reader_who_leaves_gets_what_is_there(model: Any, fail_at: int) -> None:
    whole = model.generate(PROMPTS, max_new_tokens=12).tolist()
    recorder = Recorder(fail_at, RequestCancelledError("left"))
    found = model.generate(PROMPTS, streamer=recorder, max_new_tokens=12).tolist()
    assert found == [row[: 3 + fail_at - 1] for row in whole]
    assert model._engine_slot.engine.scheduler.idle
    assert model._engine_slot.engine.space.held == 0


def test_a_streamer_that_can_be_told_of_a_failure_is(model: Any) -> None:
    class Told(Recorder):
        def fail(self, error: BaseException) -> None:
            self.calls.append(error)

    def broken(input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] == 5:
            raise KeyError("broken")
        return scores

    told = Told()
    with pytest.raises(KeyError) as caught:
        model.generate(IDS, streamer=told, logits_processor=[broken])
    assert [type(call) for call in told.calls] == [tuple] * 3 + [KeyError]
    assert told.calls[-1] is caught.value


def test_nothing_is_put_for_arguments_that_are_refused(model: Any) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="no argument"):
        model.generate(IDS, streamer=recorder, nonsense=1)
    assert recorder.calls == []


def pieced(events: Iterator[Any], rows: int) -> tuple[list[list[int]], list[str | None]]:
    tokens: list[list[int]] = [[] for _ in range(rows)]
    reasons: list[str | None] = [None] * rows
    for event in events:
        assert reasons[event.row] is None, "an event of a row that has ended"
        tokens[event.row] += event.tokens
        reasons[event.row] = event.finished
    return tokens, reasons


def test_events_of_rows_that_end_differently(model: Any, ending: tuple[dict[str, Any], list[list[int]]]) -> None:
    arguments, rows = ending
    tokens, reasons = pieced(model.stream(PROMPTS, **arguments), 3)
    assert tokens == rows
    assert reasons == ["eos" if row[-1] == arguments["eos_token_id"] else "length" for row in rows]


def test_events_come_step_by_step(model: Any) -> None:
    events = model.stream(PROMPTS, max_new_tokens=4)
    steps = model._engine_slot.engine.steps
    first = next(events)
    assert (first.row, len(first.tokens), first.finished) == (0, 1, None)
    assert model._engine_slot.engine.steps == steps + 1
    assert [event.row for event in events] == [1, 2] + [0, 1, 2] * 3


def test_events_of_beams_and_samples(model: Any) -> None:
    for asked in ({"num_beams": 3}, {"do_sample": True, "seed": 4}):
        arguments = {"num_return_sequences": 2, "max_new_tokens": 5, **asked}
        tokens, reasons = pieced(model.stream(PROMPTS, **arguments), 6)
        assert tokens == model.generate(PROMPTS, **arguments)[:, 3:].tolist()
        assert reasons == ["length"] * 6


def test_events_tell_the_trace_of_their_rows(model: Any) -> None:
    asked = {"do_sample": True, "seed": 4, "num_return_sequences": 2, "max_new_tokens": 4}
    events = list(model.stream(PROMPTS, events=True, **asked))
    assert [event.row for event in events] == [*range(6)] * 4
    for event in events:
        [told] = event.trace
        assert (told.nodes[0].token,) == event.tokens
    silent = list(model.stream(PROMPTS, **asked))
    assert [event[:3] for event in events] == [event[:3] for event in silent]
    assert not any(event.trace for event in silent)
    output = model.generate(PROMPTS, output_trace=True, return_dict_in_generate=True, **asked)
    assert [trace.events for trace in output.trace] == [
        tuple(event.trace[0] for event in events if event.row == row) for row in range(6)
    ]


BEAMS: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": [28, 14, 3], "early_stopping": True},
    {"num_beams": 3, "do_sample": True, "seed": 2, "temperature": 0.5},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.2, "num_return_sequences": 2},
    {"num_beams": 4, "force_words_ids": [[8]]},
]


@pytest.mark.parametrize("asked", BEAMS)
def test_beams_stream_what_they_agree_on(model: Any, asked: dict[str, Any]) -> None:
    asked = {"max_new_tokens": 16, "pad_token_id": PAD, **asked}
    copies = asked.get("num_return_sequences", 1)
    events = list(model.stream(PROMPTS, events=True, **asked))
    tokens, reasons = pieced(iter(events), 3 * copies)
    result = model.generate(PROMPTS, **asked)[:, 3:].tolist()
    assert [row + [PAD] * (len(result[0]) - len(row)) for row in tokens] == result
    assert all(reasons)
    assert {type(told) for event in events for told in event.trace} == {Branched}
    steps = [told.step for event in events if event.row == 0 for told in event.trace]
    assert steps == sorted(steps)
    assert set(steps) == set(range(max(steps) + 1))
    recorder = Recorder()
    model.generate(PROMPTS, streamer=recorder, **asked)
    assert [list(row) for row in zip(*(call[2] for call in recorder.calls[1:-1]))] == result


def test_settled_tokens_come_before_the_end(model: Any) -> None:
    events = list(model.stream([PROMPTS[0]], num_beams=2, max_new_tokens=30))
    assert len(events) > 2
    assert all(event.finished is None for event in events[:-1])


def test_the_reason_of_a_criterion_and_of_time(model: Any) -> None:
    assert [event.finished for event in model.stream(IDS, stopping_criteria=[lambda ids, scores: True])] == ["criteria"]
    assert [event.finished for event in model.stream(IDS, max_time=1e-9)] == ["time"]


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_frees_everything(model: Any, taken: int) -> None:
    events = model.stream(PROMPTS, max_new_tokens=20)
    engine = model._engine_slot.engine
    for _ in range(taken):
        next(events)
    assert (engine.space.held > 0) == (taken > 0)
    events.close()
    assert engine.scheduler.idle
    assert engine.space.held == 0
    assert list(events) == []


def test_a_stream_that_is_forgotten_frees_everything(model: Any) -> None:
    model.stream(PROMPTS, max_new_tokens=20)
    assert model._engine_slot.engine.scheduler.idle
    for event in model.stream(PROMPTS, max_new_tokens=20):
        if event.row == 2:
            break
    assert model._engine_slot.engine.scheduler.idle


def test_arguments_are_checked_before_the_first_event(model: Any) -> None:
    with pytest.raises(ValueError, match="no argument 'streamer'"):
        model.stream(IDS, streamer=Recorder())
    with pytest.raises(ValueError, match="vocabulary"):
        model.stream([[99]])


def test_failures_reach_the_consumer(model: Any) -> None:
    def broken(input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] == 5:
            raise KeyError("broken")
        return scores

    events = model.stream(IDS, logits_processor=[broken])
    assert [next(events).tokens for _ in range(2)] == [(12,), (5,)]
    with pytest.raises(KeyError, match="broken"):
        next(events)
    assert model._engine_slot.engine.scheduler.idle


def test_two_streams_at_once(model: Any) -> None:
    expected = [model.generate([row], max_new_tokens=6)[0, len(row) :].tolist() for row in PROMPTS[:2]]
    left, right = (model.stream([row], max_new_tokens=6) for row in PROMPTS[:2])
    found: list[list[int]] = [[], []]
    for row, events in ((0, left), (1, right), (1, right), (0, left)):
        found[row] += next(events).tokens
    for row, events in ((1, right), (0, left)):
        found[row] += [token for event in events for token in event.tokens]
    assert found == expected
