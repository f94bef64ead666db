"""Which model `loquent train` trains: options, what can be refused of them early, and the model itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from loquent.cli.options import group_option
from loquent.errors import ArgumentError

if TYPE_CHECKING:
    from loquent.config import PretrainedConfig
    from loquent.config.lora import LoraConfig
    from loquent.tokenization import PreTrainedTokenizer
    from loquent.torch.causal import CausalLM

_MODEL, _LORA = "Model", "LoRA"


class DtypeName(str, Enum):
    """What `--dtype` takes."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class BeginningOptions:
    """The model to begin with, and where it is trained."""

    model: Annotated[
        str | None,
        group_option(
            _MODEL, "--model", "-m", metavar="TEXT", help="A folder, or a name on the hub. (default: the package's own)"
        ),
    ] = None
    config: Annotated[
        Path | None, group_option(_MODEL, metavar="FILE", help="From scratch instead, by a config.json.")
    ] = None
    tokenizer: Annotated[
        str | None,
        group_option(_MODEL, metavar="TEXT", help="The folder or name of the tokenizer. (default: the model's)"),
    ] = None
    revision: Annotated[
        str | None, group_option(_MODEL, metavar="TEXT", help="A branch, tag or commit of the model.")
    ] = None
    dtype: Annotated[
        DtypeName, group_option(_MODEL, "--dtype", help="How weights are held and saved.", show_default=True)
    ] = DtypeName.float32
    device: Annotated[str, group_option(_MODEL, metavar="TEXT", help="cpu, cuda, cuda:1.", show_default=True)] = "cpu"
    offline: Annotated[bool, group_option(_MODEL, "--offline", help="Never ask the hub.")] = False

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ArgumentError: a config and a model, or a config without a tokenizer.
        """
        if self.config is None:
            return
        if self.model is not None:
            raise ArgumentError("--model begins with trained weights and --config from scratch. Leave one of them out.")
        if self.tokenizer is None:
            raise ArgumentError(
                "--config describes a model, which needs a tokenizer. Pass --tokenizer FOLDER; loquent tokenizer train "
                "makes one."
            )
        if not self.config.is_file():
            raise ArgumentError(f"--config {self.config} is not a file. Pass a config.json.")

    @property
    def hub(self) -> dict[str, Any]:
        """What the hub is asked with."""
        return {"revision": self.revision, "local_files_only": self.offline}

    @property
    def name(self) -> str:
        """The folder or name of the trained weights."""
        from loquent.text import place_of

        return os.fspath(place_of(self.model))

    def load_tokenizer(self) -> PreTrainedTokenizer:
        """The tokenizer named, or the model's."""
        from loquent import AutoTokenizer

        if self.tokenizer is not None:
            named: PreTrainedTokenizer = AutoTokenizer.from_pretrained(self.tokenizer, local_files_only=self.offline)
            return named
        own: PreTrainedTokenizer = AutoTokenizer.from_pretrained(self.name, **self.hub)
        return own

    def read_config(self, tokenizer: PreTrainedTokenizer) -> PretrainedConfig | None:
        """The config to begin from scratch with; None where a model's weights are trained further."""
        from loquent.training.starting import config_for

        return None if self.config is None else config_for(self.config, tokenizer)

    def load_model(self, config: PretrainedConfig | None, seed: int) -> CausalLM:
        """The model, with random weights where there is a config."""
        from loquent.training.starting import from_checkpoint, from_scratch

        if config is not None:
            return from_scratch(config, seed=seed, dtype=self.dtype.value, device=self.device)
        return from_checkpoint(self.name, dtype=self.dtype.value, device=self.device, hub=self.hub)


@dataclass(frozen=True)
class LoraOptions:
    """A low-rank adapter to train in place of the weights."""

    lora_rank: Annotated[
        int | None,
        group_option(_LORA, min=1, metavar="N", help="Train an adapter of this rank instead of the weights."),
    ] = None
    lora_alpha: Annotated[
        float | None, group_option(_LORA, metavar="X", help="What its product is scaled by. (default: twice the rank)")
    ] = None
    lora_dropout: Annotated[
        float | None, group_option(_LORA, min=0, max=1, metavar="X", help="Of the adapter's inputs. (default: 0)")
    ] = None
    lora_target: Annotated[
        list[str] | None,
        group_option(
            _LORA, metavar="TEXT", help='A layer to adapt, as q_proj, or "all-linear". (default: queries and values)'
        ),
    ] = None
    merge: Annotated[bool, group_option(_LORA, "--merge", help="Write the model with the adapter merged in.")] = False

    def config(self) -> LoraConfig | None:
        """The adapter's config; None where the weights are trained.

        Raises:
            ArgumentError: options of an adapter without its rank.
            ConfigError: a value cannot work.
        """
        from loquent.config.lora import ALL_LINEAR, LoraConfig

        if self.lora_rank is None:
            given = [name for name, value in vars(self).items() if value not in (None, False, [])]
            if given:
                raise ArgumentError(f"--{given[0].replace('_', '-')} is about an adapter. Pass --lora-rank, such as 8.")
            return None
        targets = self.lora_target or None
        if targets and ALL_LINEAR in targets and len(targets) > 1:
            raise ArgumentError(f"--lora-target {ALL_LINEAR} names every layer already. Leave the others out.")
        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha,
            lora_dropout=self.lora_dropout or 0.0,
            target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else None if targets is None else tuple(targets),
            task_type="CAUSAL_LM",
        )
