"""What a model remembers between calls is used as long as its weights are the same, and never after they changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loquent.generation import engine_of

PROMPT = (torch.arange(40)[None] * 7) % 31 + 5


def changed_by_an_optimizer(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(model.parameters(), lr=0.05).step()


def changed_through_data(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.3)


def hooked(model: Any) -> None:
    model.base_model.blocks[0].register_forward_hook(lambda module, args, output: output * 0.5)


def patched(model: Any) -> None:
    block = model.base_model.blocks[0]
    forward = block.forward
    block.forward = lambda *args, **kwargs: forward(*args, **kwargs) * 0.5


def test_the_next_turn_reads_only_what_is_new(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model.generate(PROMPT, max_new_tokens=8, do_sample=False)
    engine = engine_of(model)
    read: list[int] = []
    run = engine.backend.run

    def counting(store: Any, segments: Any, *args: Any) -> Any:
        read.extend(len(segment.tokens) for segment in segments)
        return run(store, segments, *args)

    monkeypatch.setattr(engine.backend, "run", counting)
    again = model.generate(torch.cat([first, torch.tensor([[7, 8, 9]])], 1), max_new_tokens=4, do_sample=False)
    assert read[0] < engine.space.page_size + 4  # the unfinished page, and three tokens
    assert torch.equal(again[:, : first.shape[1]], first)


@pytest.mark.parametrize("change", [changed_by_an_optimizer, changed_through_data, hooked, patched])
def test_nothing_old_is_used_after_a_change(model: Any, change: Callable[[Any], None]) -> None:
    model = copy.deepcopy(model)
    prompt = PROMPT
    model.generate(prompt, max_new_tokens=8)
    change(model)
    fresh = copy.deepcopy(model)
    if change is patched:
        patched_fresh = fresh.base_model.blocks[0]
        del patched_fresh.forward
        patched(fresh)
    expected = fresh.generate(prompt, max_new_tokens=8)
    assert torch.equal(model.generate(prompt, max_new_tokens=8), expected)
    logits = fresh(expected[:, :-1]).logits[0, prompt.shape[1] - 1 :]
    assert torch.equal(logits.argmax(-1), expected[0, prompt.shape[1] :])
