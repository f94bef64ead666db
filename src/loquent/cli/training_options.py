"""How `loquent train` trains, as options: the fields of `TrainingArguments` in panels, under their own defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from loquent.cli.options import group_option
from loquent.training.arguments import TrainingArguments

_STEPS, _LEARNING, _KEEPING, _EFFORT = "Steps", "Learning", "Checks and checkpoints", "Memory and speed"


class OptimizerName(str, Enum):
    """What `--optim` takes."""

    adamw = "adamw"
    muon = "muon"


class ScheduleName(str, Enum):
    """What `--lr-scheduler-type` takes."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"
    warmup_stable_decay = "warmup_stable_decay"


_OPTIMIZER, _SCHEDULE = OptimizerName(TrainingArguments.optim), ScheduleName(TrainingArguments.lr_scheduler_type)


def _number(panel: str, *names: str, help: str, **settings: Any) -> Any:
    return group_option(panel, *names, metavar=settings.pop("metavar", "N"), help=help, show_default=True, **settings)


def _share(panel: str, *names: str, help: str) -> Any:
    return _number(panel, *names, metavar="X", help=help, min=0, max=1)


@dataclass(frozen=True)
class StepOptions:
    """How much is read, and how much at once."""

    max_steps: Annotated[
        int | None,
        group_option(
            _STEPS,
            "--max-steps",
            "--steps",
            min=1,
            metavar="N",
            help="Updates of the weights. (default: as the epochs say)",
        ),
    ] = None
    num_train_epochs: Annotated[
        float, _number(_STEPS, "--num-train-epochs", "--epochs", metavar="X", help="How often all data are read.")
    ] = TrainingArguments.num_train_epochs
    per_device_train_batch_size: Annotated[
        int, _number(_STEPS, "--per-device-train-batch-size", "--batch-size", help="Packs read at once on a device.")
    ] = TrainingArguments.per_device_train_batch_size
    gradient_accumulation_steps: Annotated[
        int,
        _number(_STEPS, "--gradient-accumulation-steps", "--accumulate", help="Such batches that make one step."),
    ] = TrainingArguments.gradient_accumulation_steps
    seed: Annotated[int, _number(_STEPS, min=0, help="Of the order, dropout, new weights and what is held out.")] = (
        TrainingArguments.seed
    )


@dataclass(frozen=True)
class LearningOptions:
    """The optimizer and its schedule."""

    learning_rate: Annotated[
        float, _number(_LEARNING, "--learning-rate", "--lr", metavar="X", help="The schedule's highest.")
    ] = TrainingArguments.learning_rate
    optim: Annotated[OptimizerName, group_option(_LEARNING, help="What moves the weights.", show_default=True)] = (
        _OPTIMIZER
    )
    lr_scheduler_type: Annotated[
        ScheduleName,
        group_option(_LEARNING, "--lr-scheduler-type", "--schedule", help="How the rate goes on.", show_default=True),
    ] = _SCHEDULE
    warmup_steps: Annotated[int, _number(_LEARNING, min=0, help="Steps over which the rate rises.")] = (
        TrainingArguments.warmup_steps
    )
    warmup_ratio: Annotated[float, _share(_LEARNING, help="Or the share of the steps.")] = (
        TrainingArguments.warmup_ratio
    )
    decay_ratio: Annotated[float, _share(_LEARNING, help="The share in which warmup_stable_decay falls.")] = (
        TrainingArguments.decay_ratio
    )
    min_lr_ratio: Annotated[float, _share(_LEARNING, help="Where a falling rate ends, of the highest.")] = (
        TrainingArguments.min_lr_ratio
    )
    max_grad_norm: Annotated[
        float, _number(_LEARNING, metavar="X", min=0, help="Gradients are scaled down to this norm; 0: never.")
    ] = TrainingArguments.max_grad_norm
    weight_decay: Annotated[float, _number(_LEARNING, metavar="X", min=0, help="Of matrices.")] = (
        TrainingArguments.weight_decay
    )
    adam_beta1: Annotated[float, _share(_LEARNING, help="AdamW's first decay.")] = TrainingArguments.adam_beta1
    adam_beta2: Annotated[float, _share(_LEARNING, help="AdamW's second decay.")] = TrainingArguments.adam_beta2
    adam_epsilon: Annotated[float, _number(_LEARNING, metavar="X", min=0, help="AdamW's epsilon.")] = (
        TrainingArguments.adam_epsilon
    )
    muon_momentum: Annotated[float, _share(_LEARNING, help="Muon's momentum.")] = TrainingArguments.muon_momentum


@dataclass(frozen=True)
class KeepingOptions:
    """What is told, evaluated and kept on the way."""

    logging_steps: Annotated[int, _number(_KEEPING, help="Tell of the loss every so many steps.")] = (
        TrainingArguments.logging_steps
    )
    eval_steps: Annotated[int, _number(_KEEPING, min=0, help="Read the held-out data so often; 0: at the end.")] = (
        TrainingArguments.eval_steps
    )
    per_device_eval_batch_size: Annotated[
        int, _number(_KEEPING, "--per-device-eval-batch-size", "--eval-batch-size", help="Packs read at once there.")
    ] = TrainingArguments.per_device_eval_batch_size
    save_steps: Annotated[int, _number(_KEEPING, min=0, help="Write a checkpoint so often; 0: never.")] = (
        TrainingArguments.save_steps
    )
    save_total_limit: Annotated[
        int, _number(_KEEPING, min=0, help="Checkpoints to keep, the best one besides; 0: all.")
    ] = TrainingArguments.save_total_limit or 0
    load_best_model_at_end: Annotated[
        bool,
        group_option(_KEEPING, "--load-best-model-at-end", "--load-best", help="End with the best evaluation's model."),
    ] = TrainingArguments.load_best_model_at_end
    early_stopping_patience: Annotated[
        int,
        _number(
            _KEEPING,
            "--early-stopping-patience",
            "--early-stop",
            min=0,
            help="Stop after so many evaluations that were no better; 0: never.",
        ),
    ] = TrainingArguments.early_stopping_patience
    early_stopping_threshold: Annotated[
        float, _number(_KEEPING, metavar="X", min=0, help="How much lower a loss must be to be better.")
    ] = TrainingArguments.early_stopping_threshold


@dataclass(frozen=True)
class EffortOptions:
    """How memory and time are spent."""

    bf16: Annotated[
        bool | None,
        group_option(
            _EFFORT, "--bf16/--no-bf16", help="Compute in bfloat16. (default: where the processor is fast at it)"
        ),
    ] = None
    gradient_checkpointing: Annotated[
        bool,
        group_option(_EFFORT, "--gradient-checkpointing", "--checkpointing", help="Less memory, a third more work."),
    ] = TrainingArguments.gradient_checkpointing
    torch_compile: Annotated[
        bool, group_option(_EFFORT, "--torch-compile", "--compile", help="Compile the blocks; pays in long runs.")
    ] = TrainingArguments.torch_compile
    threads: Annotated[
        int | None, group_option(_EFFORT, min=1, metavar="N", help="Threads of the CPU. (default: all cores)")
    ] = None


def training_arguments(
    out: Path,
    steps: StepOptions,
    learning: LearningOptions,
    keeping: KeepingOptions,
    effort: EffortOptions,
    **rest: Any,
) -> TrainingArguments:
    """What the options mean; `rest` has the fields that other options say.

    Raises:
        ArgumentError: a value cannot work.
    """
    known = {field.name for field in fields(TrainingArguments)}
    given = {name: value for group in (steps, learning, keeping, effort) for name, value in vars(group).items()}
    given |= {name: value.value for name, value in given.items() if isinstance(value, Enum)}
    given["bf16"] = bool(effort.bf16)
    given["max_steps"] = steps.max_steps or -1
    given["save_total_limit"] = keeping.save_total_limit or None
    return TrainingArguments(out, **{**{name: value for name, value in given.items() if name in known}, **rest})
