"""The training loop: step by step from packs to updated weights, with events for listeners; it shows nothing itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad_norm_

from loquent.errors import ArgumentError, TrainingError
from loquent.generation.identity import digest_of
from loquent.torch.identity import sampled_base_weights
from loquent.training.arguments import TrainingArguments
from loquent.training.checkpoints import Checkpoints, Progress
from loquent.training.compiling import compile_blocks, release_blocks
from loquent.training.data.examples import Ints
from loquent.training.data.order import Order
from loquent.training.data.packing import Packs
from loquent.training.devices import Devices, mixed_precision
from loquent.training.evaluating import mean_loss
from loquent.training.events import Evaluated, Event, Finished, Listener, Saved, Started, Stepped
from loquent.training.interrupts import held_interrupts
from loquent.training.objective import Objective, on_device
from loquent.training.optimizers import make_optimizers
from loquent.training.schedules import learning_rate_factor

if TYPE_CHECKING:
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.torch.causal import CausalLM


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        steps: how many steps the weights have behind them.
        reason: "done", "early stop" or "interrupted".
        losses: the mean loss of a counted token (nats) of each step of this run, from the first after resuming on.
        evaluations: the evaluations of this run.
        best_step: the step with the lowest evaluation, None without one.
    """

    steps: int
    reason: str
    losses: list[float]
    evaluations: list[Evaluated]
    best_step: int | None


@dataclass
class _Window:
    """What took how long since listeners were last told of a step, or the run began."""

    tokens: int = 0
    steps: int = 0
    since: float = field(default_factory=time.monotonic)


class Run:
    """One run of `loquent.training.train`, from its preparation to its end."""

    def __init__(
        self,
        model: CausalLM,
        packs: Packs,
        arguments: TrainingArguments,
        evaluation: Packs | None = None,
        tokenizer: PreTrainedTokenizer | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.model, self.packs, self.arguments, self.evaluation = model, packs, arguments, evaluation
        self.devices = Devices()
        self.listeners = listeners if self.devices.is_main else ()
        self.devices.place(model)
        rows = arguments.rows_per_step * self.devices.count
        self.order = Order(len(packs), rows, arguments.seed)
        self.steps = arguments.max_steps
        if self.steps < 0:
            self.steps = math.ceil(arguments.num_train_epochs * self.order.steps_per_epoch)
        self.optimizers = make_optimizers(model, arguments)
        self.objective = self.devices.replicate(Objective(model))
        self.checkpoints = Checkpoints(
            Path(arguments.output_dir), model, self.optimizers, tokenizer, arguments.save_total_limit
        )
        self.course: dict[str, Any] = {
            "data": packs.fingerprint(),
            "packs_per_step": rows,
            "seed": arguments.seed,
            "optim": arguments.optim,
        }
        if model.peft_config:
            # Its checkpoints hold the adapter alone.
            self.course["base_model"] = digest_of(model.decoder, sampled_base_weights(model))
        self.progress = Progress(course=self.course)
        self.losses: list[float] = []
        self.evaluations: list[Evaluated] = []
        self._window = _Window()

    def run(self) -> TrainingResult:
        """Train until the end; what was learned is in the model and in the output folder."""
        self._resume()
        was_checkpointing = self.model.is_gradient_checkpointing
        self.prepare()
        try:
            return self._run()
        finally:
            self._release(was_checkpointing)

    def _run(self) -> TrainingResult:
        weights = list(self.model.parameters())
        trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
        parameters = sum(weight.numel() for weight in weights)
        self._tell(Started(self.steps, self.progress.step, parameters, trainable, self.packs.padding))
        reason = "done"
        try:
            going_on = self._look_around() if self.progress.due else not self._is_hopeless()
            while going_on and self.progress.step < self.steps:
                self.step(self.progress.step)
                going_on = self._look_around()
            reason = "early stop" if self.progress.step < self.steps else "done"
        except KeyboardInterrupt:
            reason = "interrupted"
        self._finish(reason)
        return TrainingResult(self.progress.step, reason, self.losses, self.evaluations, self.progress.best_step)

    def prepare(self) -> None:
        """Bring the model into the state that steps need."""
        arguments, model = self.arguments, self.model
        model.train()
        # What an interrupted run left behind.
        model.zero_grad()
        if arguments.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        if arguments.torch_compile:
            compile_blocks(model)

    def _release(self, was_checkpointing: bool) -> None:
        """Bring the model into the state that generating needs."""
        self.model.eval()
        if not was_checkpointing:
            self.model.gradient_checkpointing_disable()
        release_blocks(self.model)

    def _resume(self) -> None:
        wanted, steps = self.arguments.resume_from_checkpoint, self.checkpoints.steps()
        if wanted is False or (wanted == "auto" and not steps):
            return
        if wanted is True and not steps:
            raise ArgumentError(
                f"resume_from_checkpoint=True, but {str(self.arguments.output_dir)!r} has no checkpoint. "
                "Pass 'auto' to begin where there is none."
            )
        folder = self.checkpoints.path(steps[-1]) if wanted is True or wanted == "auto" else Path(wanted)
        self.progress = self.checkpoints.load(folder, self.course)

    # --- a step ------------------------------------------------------------------------------------------------------

    def step(self, step: int) -> None:
        """One update of the weights."""
        arguments, devices = self.arguments, self.devices
        rate = arguments.learning_rate * learning_rate_factor(step, self.steps, arguments)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        # Dropout follows from the seed and the step, so that a resumed run draws what an uninterrupted one does.
        torch.manual_seed(((arguments.seed << 32) + step * devices.count + devices.rank) % 2**63)
        packs = self.order.batch(step)
        counted = int(self.packs.counted[packs].sum())
        if not counted:
            raise TrainingError(f"The packs of step {step + 1} have no token that counts. Read more packs in a step.")
        loss, norm = self._learn(packs, counted)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"The loss of step {step + 1} is {loss}, the norm of its gradients {norm}. Resume from a checkpoint "
                "with a lower learning_rate, a longer warm-up, or bf16=False."
            )
        with held_interrupts():
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
            self._count(loss, counted, int(self.packs.used[packs].sum()))
            if self._is_time(arguments.logging_steps) or self.progress.step == self.steps:
                self._tell_of_step(rate, norm)

    def _learn(self, packs: Ints, counted: int) -> tuple[float, float]:
        """Gradients of the mean loss of a counted token of all devices; returns it, and the gradients' norm."""
        rows, device = self.arguments.per_device_train_batch_size, self.model.device
        total = torch.zeros((), device=device)
        mine = packs[self.devices.rank :: self.devices.count]
        for start in range(0, len(mine), rows):
            batch = on_device(self.packs.batch(mine[start : start + rows]), device)
            with self.devices.accumulate(self.objective, last=start + rows >= len(mine)):
                with mixed_precision(device, self.arguments.bf16):
                    loss = self.objective(batch) / counted
                # Replicas average their gradients, where the sum is wanted.
                (loss * self.devices.count).backward()
            total += loss.detach()
        trained = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = clip_grad_norm_(trained, self.arguments.max_grad_norm or math.inf)
        return float(self.devices.sum(total)), float(norm)

    def _count(self, loss: float, counted: int, tokens: int) -> None:
        self.losses.append(loss)
        self.progress.step += 1
        time_is_up = self._is_time(self.arguments.eval_steps) or self.progress.step == self.steps
        self.progress.due = self.evaluation is not None and time_is_up
        self.progress.tokens += tokens
        self.progress.untold_loss += loss * counted
        self.progress.untold_counted += counted
        self._window.tokens += tokens
        self._window.steps += 1

    def _tell_of_step(self, rate: float, norm: float) -> None:
        window, progress = self._window, self.progress
        seconds = time.monotonic() - window.since
        self._tell(
            Stepped(
                step=progress.step,
                steps=self.steps,
                epoch=progress.step / self.order.steps_per_epoch,
                loss=progress.untold_loss / progress.untold_counted,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=progress.tokens,
                tokens_per_second=window.tokens / seconds,
                seconds_left=(self.steps - progress.step) * seconds / window.steps,
            )
        )
        self._window = _Window()
        progress.untold_loss, progress.untold_counted = 0.0, 0

    # --- between steps -----------------------------------------------------------------------------------------------

    def _look_around(self) -> bool:
        """Evaluate and save where it is time; returns whether to go on."""
        if self.progress.due and self.evaluation is not None:
            self._evaluate(self.evaluation)
        if self._is_time(self.arguments.save_steps) or (self._is_best_now() and self.arguments.load_best_model_at_end):
            self._save()
        return not self._is_hopeless()

    def _evaluate(self, held_out: Packs) -> None:
        started = time.monotonic()
        loss = mean_loss(self.objective, held_out, self.arguments, self.devices, self.model.device)
        self._window.since += time.monotonic() - started
        with held_interrupts():
            self._judge(loss)

    def _judge(self, loss: float) -> None:
        progress = self.progress
        best = progress.best_loss is None or loss < progress.best_loss - self.arguments.early_stopping_threshold
        progress.worse = 0 if best else progress.worse + 1
        if best:
            progress.best_loss, progress.best_step = loss, progress.step
        found = Evaluated(progress.step, loss, math.exp(min(loss, 700.0)), best)
        self.evaluations.append(found)
        self._tell(found)
        progress.due = False

    def _is_hopeless(self) -> bool:
        """Whether so many evaluations were no better that the run stops early."""
        patience = self.arguments.early_stopping_patience
        return bool(patience) and self.progress.worse >= patience

    def _is_best_now(self) -> bool:
        return self.progress.best_step == self.progress.step

    def _save(self) -> None:
        started = time.monotonic()
        self.devices.wait()
        if self.devices.is_main:
            self._tell(Saved(self.progress.step, self.checkpoints.save(self.progress)))
        self.devices.wait()
        self._window.since += time.monotonic() - started

    def _finish(self, reason: str) -> None:
        """A last checkpoint and, where the run is at its end, the model in the output folder."""
        if self.arguments.save_steps and self.checkpoints.steps()[-1:] != [self.progress.step]:
            self._save()
        if reason != "interrupted":
            best = self.progress.best_step
            if self.arguments.load_best_model_at_end and best not in (None, self.progress.step):
                self.checkpoints.load_model(self.checkpoints.path(best))
            if self.devices.is_main:
                self.checkpoints.save_model(Path(self.arguments.output_dir))
        self._tell(Finished(self.progress.step, reason))

    def _is_time(self, every: int) -> bool:
        return bool(every) and self.progress.step % every == 0

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
