"""Learning-rate schedules: what the highest rate is multiplied by at each step, as pure functions of the step."""

from __future__ import annotations

import math

from loquent.training.arguments import TrainingArguments


def learning_rate_factor(step: int, steps: int, arguments: TrainingArguments) -> float:
    """The factor of step `step` of `steps`, counted from 0.

    The warm-up reaches 1 at its last step; schedules that fall reach `min_lr_ratio` behind the last step.
    """
    warm_up = arguments.warmup_steps or math.ceil(arguments.warmup_ratio * steps)
    if step < warm_up:
        return (step + 1) / warm_up
    kind, lowest = arguments.lr_scheduler_type, arguments.min_lr_ratio
    if kind == "constant":
        return 1.0
    if kind == "warmup_stable_decay":
        falling = max(1, round(arguments.decay_ratio * steps))
        return lowest + (1 - lowest) * min(1.0, (steps - step) / falling)
    done = (step - warm_up) / max(1, steps - warm_up)
    left = 1 - done if kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return lowest + (1 - lowest) * left
