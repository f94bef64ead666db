"""How a model is trained: one frozen record under the names of transformers' `TrainingArguments`, checked when made.

The documentation page is https://huggingface.co/docs/transformers/main_classes/trainer. What it has and has no meaning
here is not accepted, rather than ignored.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from loquent.errors import ArgumentError, hint

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "linear", "constant", "warmup_stable_decay")


@dataclass(frozen=True)
class TrainingArguments:
    """Everything about a run that is neither the model nor the data.

    Attributes:
        output_dir: where the trained model, the checkpoints (`checkpoint-<step>`) and the reports go.
        max_steps: how many steps (updates of the weights) there are; -1: as `num_train_epochs` says.
        num_train_epochs: how often all packs are read, where `max_steps` is -1.
        max_length: tokens in a pack, and the most that a piece of a document may have.
        packing: whether several pieces share a pack; otherwise each is padded to `max_length`.
        per_device_train_batch_size: packs that a device reads at once.
        per_device_eval_batch_size: packs that it reads at once when evaluating.
        gradient_accumulation_steps: how many such batches, one after another, make a step.
        learning_rate: the highest of the schedule.
        optim: "adamw", or "muon" (Jordan and others, 2024), which moves the matrices of the blocks along orthogonal
            directions as far as AdamW would on average, and all other parameters by AdamW.
        adam_beta1, adam_beta2, adam_epsilon, weight_decay: AdamW's; weights of fewer than two dimensions do not decay.
        muon_momentum: Muon's.
        max_grad_norm: gradients together are scaled down to this norm; 0: never.
        lr_scheduler_type: "cosine", "linear" (both fall from the warm-up's end to the last step), "constant", or
            "warmup_stable_decay", which stays at the top and falls in a straight line over the last `decay_ratio`.
        warmup_steps, warmup_ratio: steps over which the rate rises, or which share of all steps.
        decay_ratio: the share of the steps in which "warmup_stable_decay" falls.
        min_lr_ratio: where a falling schedule ends, as a share of `learning_rate`.
        bf16: compute in bfloat16 where that is safe (autocast); weights and optimizer stay in float32.
        gradient_checkpointing: compute blocks again when going backward: less memory, a third more work.
        torch_compile: compile the blocks; needs a C++ compiler on a CPU, and pays after some hundred steps.
        logging_steps: how often listeners are told of a step.
        eval_steps: how often the held-out data are read; 0: at the end only.
        save_steps: how often a checkpoint is written; 0: never.
        save_total_limit: how many checkpoints are kept; None: all.
        load_best_model_at_end: end with the weights whose evaluation was best, not with the last.
        early_stopping_patience: stop after so many evaluations without improvement; 0: never.
        early_stopping_threshold: how much lower the loss must be to count as one.
        seed: of the order of the packs and of dropout.
        resume_from_checkpoint: go on from the last checkpoint in `output_dir` (True), or from a folder; "auto" as True,
            but from the beginning where there is none.
    """

    output_dir: str | os.PathLike[str]
    max_steps: int = -1
    num_train_epochs: float = 3.0
    max_length: int = 512
    packing: bool = True
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    optim: str = "adamw"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    muon_momentum: float = 0.95
    max_grad_norm: float = 1.0
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    decay_ratio: float = 0.2
    min_lr_ratio: float = 0.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    logging_steps: int = 10
    eval_steps: int = 0
    save_steps: int = 500
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = False
    early_stopping_patience: int = 0
    early_stopping_threshold: float = 0.0
    seed: int = 42
    resume_from_checkpoint: bool | str | os.PathLike[str] = False

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: a field is out of its range, of another type, or contradicts another.
        """
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), field.default)
        if self.warmup_steps and self.warmup_ratio:
            raise ArgumentError(f"{self.warmup_steps=} and {self.warmup_ratio=} say the same thing. Give one of them.")
        if self.max_steps == -1 and self.num_train_epochs <= 0:
            raise ArgumentError(f"{self.num_train_epochs=} must be above 0, or max_steps must be given.")
        if (self.early_stopping_patience or self.load_best_model_at_end) and not self.eval_steps:
            raise ArgumentError(
                f"{self.early_stopping_patience=} and {self.load_best_model_at_end=} choose by evaluations on the way. "
                "Give eval_steps."
            )
        if self.load_best_model_at_end and not self.save_steps:
            raise ArgumentError("load_best_model_at_end=True needs checkpoints. Give save_steps.")

    @property
    def rows_per_step(self) -> int:
        """How many packs one device reads in a step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def replace(self, **changes: Any) -> TrainingArguments:
        """The same arguments but for some.

        Raises:
            ArgumentError: a name is not known, or a value cannot work.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ArgumentError(f"TrainingArguments has no field {name!r}.{hint(name, known)}")
        return dataclasses.replace(self, **changes)


_CHOICES = {"optim": OPTIMIZERS, "lr_scheduler_type": SCHEDULES}
_LOWEST = {
    "max_length": 2,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
}
_SHARES = ("warmup_ratio", "decay_ratio", "min_lr_ratio", "adam_beta1", "adam_beta2", "muon_momentum")


def _check(name: str, value: Any, default: Any) -> None:
    """Refuse a value of another type than the field's default, or out of the field's range."""
    if name in ("output_dir", "resume_from_checkpoint"):
        if not isinstance(value, str | os.PathLike) and (name == "output_dir" or not isinstance(value, bool)):
            raise ArgumentError(f"{name}={value!r} must be the path of a folder.")
        return
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            known = ", ".join(map(repr, _CHOICES[name]))
            raise ArgumentError(
                f"{name}={value!r} is not known. It is one of {known}.{hint(str(value), _CHOICES[name])}"
            )
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ArgumentError(f"{name}={value!r} must be True or False.")
        return
    if name == "save_total_limit":
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ArgumentError(f"save_total_limit={value!r} must be 1 or more, or None to keep all checkpoints.")
        return
    kinds = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
        raise ArgumentError(f"{name}={value!r} must be {'a whole number' if kinds is int else 'a number'}.")
    if name == "max_steps":
        if value != -1 and value < 1:
            raise ArgumentError(f"max_steps={value!r} must be 1 or more, or -1 to go by num_train_epochs.")
    elif value < _LOWEST.get(name, 0) or (name in _SHARES and value > 1) or value == float("inf"):
        most = " and at most 1" if name in _SHARES else ""
        raise ArgumentError(f"{name}={value!r} must be at least {_LOWEST.get(name, 0)}{most}.")
