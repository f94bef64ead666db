"""From the options of `loquent train` to a run: what it begins with, checked before data are read, and the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loquent.cli.destinations import check_folder
from loquent.cli.training_model import BeginningOptions
from loquent.cli.training_options import EffortOptions
from loquent.errors import ArgumentError
from loquent.training.arguments import TrainingArguments
from loquent.training.reports.history import HISTORY

if TYPE_CHECKING:
    from loquent.config.lora import LoraConfig
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.torch.causal import CausalLM
    from loquent.training.data import Examples
    from loquent.training.events import Listener

_OF_MODELS = ("config.json", "adapter_config.json")
_OF_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")


def prepare_folder(out: Path, resume: bool) -> None:
    """Make the output folder, unless something is in it that a run would mix with its own.

    Raises:
        ArgumentError: it holds a run that is not to be resumed, or a model of no run, or cannot be made or written in.
    """
    check_folder("--out", out)
    out.mkdir(parents=True, exist_ok=True)
    holds_run = (out / HISTORY).exists() or any(out.glob("checkpoint-*"))
    if holds_run and not resume:
        raise ArgumentError(f"--out {out} holds a run. Pass --resume to go on with it, or name another folder.")
    model = next((name for name in _OF_MODELS if (out / name).exists()), None)
    if model is not None and not holds_run:
        raise ArgumentError(f"--out {out} holds a model that is of no run ({model}). Name another folder.")


@dataclass(frozen=True)
class Beginning:
    """A model with its tokenizer, and how it is trained."""

    model: CausalLM
    tokenizer: PreTrainedTokenizer
    arguments: TrainingArguments
    description: str

    def fitted(self, max_length: int | None) -> Beginning:
        """With packs as long as asked for, or as TrainingArguments and the model's positions let them be.

        Raises:
            ArgumentError: the optimizer has nothing to move, or there is no compiler where one is needed.
            ContextLengthError: the model has fewer positions.
        """
        from loquent.training.running import check_arguments

        positions = self.model.decoder.max_positions
        usual = self.arguments.max_length if positions is None else min(self.arguments.max_length, positions)
        arguments = self.arguments.replace(max_length=max_length or usual)
        check_arguments(self.model, arguments)
        return replace(self, arguments=arguments)

    def merge(self) -> float:
        """Put the adapter into the weights, and write the model in its place; returns what share rounding lost."""
        from loquent.torch.adapters import save_adapter

        out = Path(self.arguments.output_dir)
        save_adapter(self.model, out / "adapter")
        self.tokenizer.save_pretrained(out / "adapter")
        merged = self.model.merge_adapter()
        self.model.merge_and_unload()
        self.model.save_pretrained(out)
        for name in _OF_ADAPTERS:
            # Whoever found them beside the model would add them once more.
            (out / name).unlink(missing_ok=True)
        return merged.lost


def begin(
    options: BeginningOptions, adapter: LoraConfig | None, effort: EffortOptions, arguments: TrainingArguments
) -> Beginning:
    """Load or make the model.

    Raises:
        ArgumentError: the tokenizer is not the model's, or the processor cannot be had.
        HubError, CheckpointError, ConfigError, TokenizerError: a file is missing or damaged.
        MissingExtraError: PyTorch is not installed.
    """
    tokenizer = options.load_tokenizer()
    config = options.read_config(tokenizer)
    from loquent.training.devices import device_of_process, fast_bfloat16, threads, use_threads
    from loquent.training.starting import adapt

    if effort.threads is not None:
        use_threads(effort.threads)
    model = options.load_model(config, arguments.seed)
    if len(tokenizer) > model.decoder.vocabulary:
        raise ArgumentError(
            f"The tokenizer has {len(tokenizer)} tokens, the model {model.decoder.vocabulary}. Pass the model's own."
        )
    if adapter is not None:
        adapt(model, adapter, arguments.seed)
    device = device_of_process(options.device)
    fast = fast_bfloat16(device)
    bf16 = bool(fast) if effort.bf16 is None else effort.bf16
    products = f"bfloat16 ({fast or 'slow here'})" if bf16 else options.dtype.value
    where = f"{device} ({threads()} thread{'s' * (threads() > 1)})" if device == "cpu" else device
    description = (
        f"{model.config.model_type} on {where}: weights in {options.dtype.value}, products in {products}, "
        f"{arguments.optim}"
    )
    return Beginning(model, tokenizer, arguments.replace(bf16=bf16), description)


def run(beginning: Beginning, learned: Examples, held_out: Examples | None, listeners: Sequence[Listener]) -> str:
    """Train; returns how the run ended."""
    from loquent.training.running import train

    model, tokenizer = beginning.model, beginning.tokenizer
    return train(
        model, learned, beginning.arguments, evaluation=held_out, tokenizer=tokenizer, listeners=listeners
    ).reason
