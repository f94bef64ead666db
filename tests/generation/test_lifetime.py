"""A model's engine over the model's life: threads, changed weights and types, copies, and memory that comes back."""

from __future__ import annotations

import copy
import gc
import io
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from decoding.pairs import random_llama
from loquent.errors import CapacityError
from loquent.generation import running

PROMPTS = [[5, 6, 7], [8, 9], [12, 30], [5, 6, 7, 8, 9, 10]]
WAYS: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3, "temperature": 1.5},
    {"num_beams": 3},
    {"repetition_penalty": 1.4},
]


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    """A model that a test may change."""
    return random_llama(tmp_path, 2)[0]


def test_threads_get_what_they_get_alone(model: Any) -> None:
    jobs = [(prompt, {**way, "max_new_tokens": 10 + number}) for number, prompt in enumerate(PROMPTS) for way in WAYS]
    expected = [model.generate([prompt], **way).tolist() for prompt, way in jobs]
    found: list[Any] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def work(number: int) -> None:
        prompt, way = jobs[number]
        barrier.wait()
        if number % 2:
            found[number] = model.generate([prompt], **way).tolist()
        else:
            tokens = [token for event in model.stream([prompt], **way) for token in event.tokens]
            found[number] = [prompt + tokens]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == expected


def test_a_thread_that_leaves_or_fails_disturbs_nobody(model: Any) -> None:
    expected = model.generate([PROMPTS[0]], max_new_tokens=40).tolist()

    def broken(input_ids: Any, scores: Any) -> Any:
        raise ZeroDivisionError

    def leave() -> None:
        for _ in range(10):
            next(iter(model.stream([PROMPTS[1]], max_new_tokens=30)))
            with pytest.raises(ZeroDivisionError):
                model.generate([PROMPTS[2]], logits_processor=[broken])

    thread = threading.Thread(target=leave)
    thread.start()
    results = [model.generate([PROMPTS[0]], max_new_tokens=40).tolist() for _ in range(5)]
    thread.join(60)
    assert results == [expected] * 5


def test_a_stream_is_served_while_others_run(model: Any) -> None:
    """A thread that steps the engine all the time must not keep the others from their tokens until it is done."""
    seen: list[int] = []
    started = threading.Event()

    def long() -> None:
        slow = [lambda ids, scores: time.sleep(0.002) is not None]  # the model alone would be done before others begin
        for number, _ in enumerate(model.stream([PROMPTS[0]], max_new_tokens=58, stopping_criteria=slow)):
            seen.append(number)
            started.set()

    thread = threading.Thread(target=long)
    thread.start()
    started.wait(30)
    tokens = [token for event in model.stream([PROMPTS[1]], max_new_tokens=5) for token in event.tokens]
    served_at = len(seen)
    thread.join(60)
    assert len(tokens) == 5
    assert served_at < 58


@pytest.mark.parametrize("how", ["an optimizer", "in place", "a state", "another tensor"])
def test_changed_weights_are_seen(fresh: Any, how: str) -> None:
    prompt = torch.tensor([list(range(2, 36))])  # two whole pages, which must not be found again
    fresh.generate(prompt, max_new_tokens=4)
    if how == "an optimizer":
        optimizer = torch.optim.AdamW(fresh.parameters(), lr=0.5)
        fresh(prompt, labels=prompt).loss.backward()
        optimizer.step()
    elif how == "in place":
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.add_(torch.randn_like(parameter))
    elif how == "a state":
        fresh.load_state_dict({name: tensor + 0.5 for name, tensor in fresh.state_dict().items()})
    else:
        fresh.head.weight = torch.nn.Parameter(torch.randn_like(fresh.head.weight))
    found = fresh.generate(prompt, max_new_tokens=8)
    again = copy.deepcopy(fresh).generate(prompt, max_new_tokens=8)
    assert found.tolist() == again.tolist()
    with torch.no_grad():
        ids = prompt
        for _ in range(8):
            ids = torch.cat([ids, fresh(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert found.tolist() == ids.tolist()


def test_a_converted_model_goes_on(fresh: Any) -> None:
    prompt = [PROMPTS[3]]
    single = fresh.generate(prompt, max_new_tokens=8).tolist()
    fresh.to(torch.float64)
    assert fresh.generate(prompt, max_new_tokens=8).tolist() == single
    fresh.to(torch.bfloat16)
    brief = fresh.generate(prompt, max_new_tokens=8)
    assert "bfloat16" in fresh._engine_slot.engine.backend.describe()
    fresh.float()
    assert fresh.generate(prompt, max_new_tokens=8).shape == brief.shape


def test_copies_have_engines_of_their_own(fresh: Any) -> None:
    expected = fresh.generate(PROMPTS, max_new_tokens=6).tolist()
    stream = fresh.stream([PROMPTS[0]], max_new_tokens=6)
    next(stream)
    twin = copy.deepcopy(fresh)
    assert twin._engine_slot.engine is None
    assert twin.generate(PROMPTS, max_new_tokens=6).tolist() == expected
    assert twin._engine_slot.engine is not fresh._engine_slot.engine
    with torch.no_grad():
        twin.head.weight.mul_(-1)
    assert twin.generate(PROMPTS, max_new_tokens=6).tolist() != expected
    assert len(list(stream)) == 5


def test_a_model_that_has_generated_can_be_saved_by_torch(fresh: Any) -> None:
    expected = fresh.generate(PROMPTS, max_new_tokens=6).tolist()
    file = io.BytesIO()
    torch.save(fresh, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.generate(PROMPTS, max_new_tokens=6).tolist() == expected


def test_generating_leaves_training_alone(fresh: Any) -> None:
    fresh.train()
    ids = torch.tensor([PROMPTS[3]])
    loss = fresh(ids, labels=ids).loss
    fresh.generate(ids, max_new_tokens=3)
    loss.backward()
    assert fresh.training
    assert all(parameter.grad is not None for parameter in fresh.parameters())
    fresh(fresh.generate(ids, max_new_tokens=3)).logits.sum().backward()


def test_large_stores_are_given_back(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.generate(PROMPTS, max_new_tokens=40)
    engine = model._engine_slot.engine
    assert engine.store_bytes > 0
    monkeypatch.setattr(running, "KEPT_STORE_BYTES", 1000)
    for way in WAYS:
        model.generate(PROMPTS, max_new_tokens=40, **way)
        assert engine.store_bytes == 0
    model.stream(PROMPTS, max_new_tokens=40).close()
    assert engine.store_bytes == 0


def test_what_cannot_be_submitted_whole_is_not_submitted(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.generate(PROMPTS, max_new_tokens=1)
    engine = model._engine_slot.engine
    submit, submitted = engine.submit, []

    def refuse_the_second(*args: Any) -> Any:
        if submitted:
            raise CapacityError("it does not fit")
        submitted.append(submit(*args))
        return submitted[0]

    monkeypatch.setattr(engine, "submit", refuse_the_second)
    with pytest.raises(CapacityError):
        model.generate(PROMPTS, max_new_tokens=3)
    assert submitted[0].done
    assert engine.scheduler.idle


def test_a_model_that_is_dropped_is_freed(tmp_path: Path) -> None:
    model = random_llama(tmp_path, 2)[0]
    model.generate(PROMPTS, max_new_tokens=3)
    list(model.stream(PROMPTS, max_new_tokens=3))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
