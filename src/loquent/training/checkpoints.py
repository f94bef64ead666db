"""Checkpoints of a run: folders that are whole or absent at any moment, and from which it goes on as if never stopped.

A checkpoint is the model's folder (or the adapter's) with the tokenizer, `optimizer.safetensors`, and `training.json`
with the progress. It is written under another name, brought to the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from loquent.errors import ArgumentError, CheckpointError
from loquent.torch.adapters import load_adapter_values, save_adapter
from loquent.torch.loading import load_weights

if TYPE_CHECKING:
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.torch.causal import CausalLM

_NAME = re.compile(r"checkpoint-(\d+)")
_PROGRESS, _OPTIMIZER = "training.json", "optimizer.safetensors"


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps that are done.
        tokens: read so far by all devices, padding left out.
        best_loss, best_step: the best evaluation so far; None before the first.
        worse: evaluations since then.
        untold_loss, untold_counted: the loss, and over how many tokens, of the steps that listeners are not told yet.
        due: whether the evaluation that belongs to this step is still to be made.
        course: what a run cannot go on with other values of, such as hashes of the data and of an adapter's base model.
    """

    step: int = 0
    tokens: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    worse: int = 0
    untold_loss: float = 0.0
    untold_counted: int = 0
    due: bool = False
    course: Mapping[str, Any] | None = None


class Checkpoints:
    """The checkpoints in the output folder of a run."""

    def __init__(
        self,
        folder: Path,
        model: CausalLM,
        optimizers: Sequence[Optimizer],
        tokenizer: PreTrainedTokenizer | None,
        limit: int | None,
    ) -> None:
        self.folder, self.model, self.optimizers, self.tokenizer = folder, model, optimizers, tokenizer
        self.limit = limit

    def steps(self) -> list[int]:
        """The steps that have a whole checkpoint, in ascending order."""
        if not self.folder.is_dir():
            return []
        found = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if (path / _PROGRESS).is_file()]
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"checkpoint-{step}"

    def save(self, progress: Progress) -> Path:
        """Write the checkpoint of where the run is now, and drop those beyond the limit, but not the best."""
        final = self.path(progress.step)
        partial = self.folder / f".{final.name}.partial"
        # What a killed process left half written or half deleted goes too.
        for left in (*self.folder.glob(".checkpoint-*"), final):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        self.save_model(partial)
        save_file(dict(self._tensors()), partial / _OPTIMIZER)
        (partial / _PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        partial.rename(final)
        _to_disk(self.folder)
        self._drop_old(progress)
        return final

    def save_model(self, folder: Path) -> None:
        """Write what others load: the model or the adapter that is trained, with the tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.model.peft_config:
            save_adapter(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path, course: Mapping[str, Any]) -> Progress:
        """Bring the model and the optimizers where they were, and say where that is.

        Raises:
            ArgumentError: the folder is no checkpoint.
            CheckpointError: its files are damaged, or it belongs to a run on another course.
        """
        if not (folder / _PROGRESS).is_file():
            raise ArgumentError(
                f"resume_from_checkpoint={str(folder)!r} is no checkpoint of a training run (it has no {_PROGRESS})."
            )
        try:
            progress = Progress(**json.loads((folder / _PROGRESS).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / _PROGRESS} is damaged: {error}. Resume from an earlier one.") from error
        known = progress.course or {}
        differing = [
            f"{name} was {known.get(name)!r} and is {course.get(name)!r}"
            for name in {**course, **known}
            if known.get(name) != course.get(name)
        ]
        if differing:
            raise CheckpointError(
                f"{folder} is of a run that went another way: {'; '.join(differing)}. Repeat these as they were, or "
                "begin anew from its weights, by giving the folder as the model."
            )
        self.load_model(folder)
        self._load_optimizers(folder / _OPTIMIZER)
        return progress

    def load_model(self, folder: Path) -> None:
        """Bring the weights, or the adapter's, where they were."""
        if self.model.peft_config:
            load_adapter_values(self.model, folder, *self.model.active_adapters())
        else:
            load_weights(self.model, folder)

    # --- optimizers --------------------------------------------------------------------------------------------------

    def _states(self) -> Iterator[tuple[str, nn.Parameter, dict[str, Tensor]]]:
        """A name for each parameter's state, the parameter, and the state itself."""
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    yield f"{type(optimizer).__name__}.{names[id(weight)]}", weight, optimizer.state[weight]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, _, state in self._states():
            for key, value in state.items():
                yield f"{name}.{key}", value.contiguous()

    def _load_optimizers(self, path: Path) -> None:
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is missing or damaged: {error}. Resume from an earlier checkpoint."
            ) from error
        for name, weight, state in self._states():
            state.clear()
            for key in [key for key in stored if key.rpartition(".")[0] == name]:
                value = stored.pop(key)
                if value.dim() and value.shape != weight.shape:
                    raise CheckpointError(f"{path} has {key} of shape {tuple(value.shape)}, not {tuple(weight.shape)}.")
                state[key.rpartition(".")[2]] = value.to(weight.device)
        if stored:
            raise CheckpointError(f"{path} has states of parameters that are not trained now: {sorted(stored)[:3]}.")

    def _drop_old(self, progress: Progress) -> None:
        if self.limit is None:
            return
        others = [step for step in self.steps() if step not in (progress.step, progress.best_step)]
        for step in others[: max(0, len(self.steps()) - self.limit)]:
            # Renamed first, so that what is half deleted is not taken for a checkpoint.
            doomed = self.folder / f".checkpoint-{step}.old"
            self.path(step).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
