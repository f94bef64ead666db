"""Learning-rate schedules: those of transformers, a step ahead, since theirs has a first step at rate 0."""

from __future__ import annotations

import pytest
import torch
import transformers

from loquent.training import TrainingArguments
from loquent.training.schedules import learning_rate_factor

STEPS, WARM_UP = 50, 6


def factors(**fields: object) -> list[float]:
    arguments = TrainingArguments("out", **fields)
    return [learning_rate_factor(step, STEPS, arguments) for step in range(STEPS)]


def theirs(name: str, **options: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = transformers.get_scheduler(name, optimizer, WARM_UP, STEPS, scheduler_specific_kwargs=options or None)
    return [scheduler.lr_lambdas[0](step) for step in range(STEPS + 1)]


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_falling_schedules(kind: str) -> None:
    ours, expected = factors(lr_scheduler_type=kind, warmup_steps=WARM_UP), theirs(kind)
    assert ours[:WARM_UP] == pytest.approx(expected[1 : WARM_UP + 1])
    assert ours[WARM_UP:] == pytest.approx(expected[WARM_UP:STEPS])


def test_warm_up_stable_decay() -> None:
    ours = factors(lr_scheduler_type="warmup_stable_decay", warmup_steps=WARM_UP, decay_ratio=0.2)
    expected = theirs("warmup_stable_decay", num_decay_steps=10, decay_type="linear")
    assert ours[:WARM_UP] == pytest.approx(expected[1 : WARM_UP + 1])
    assert ours[WARM_UP:] == pytest.approx(expected[WARM_UP:STEPS])
    assert ours[39] == 1.0
    assert ours[41] < 1.0


def test_a_share_of_the_steps_as_warm_up_and_a_floor() -> None:
    ours = factors(lr_scheduler_type="cosine", warmup_ratio=0.1, min_lr_ratio=0.25)
    assert ours[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert min(ours[5:]) == ours[-1] > 0.25
    assert factors(lr_scheduler_type="constant") == [1.0] * STEPS
