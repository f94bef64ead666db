"""`LoraConfig`: what a LoRA adapter is, in the fields of PEFT's adapter_config.json; it holds no weights.

LoRA (arXiv:2106.09685) adds to the outputs of a linear layer, y = W x, the product of two thin matrices:
y = W x + scaling * B (A x). The fields are those of https://huggingface.co/docs/peft/package_reference/lora.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from loquent.config.field_types import MismatchError, coerce, describe
from loquent.config.json_file import saving_folder
from loquent.config.module_patterns import (
    check_of_file,
    check_regular,
    is_name,
    layer_of,
    lies_in,
    matches,
    value_for,
)
from loquent.config.reading import read_config_dict
from loquent.errors import ConfigError, hint
from loquent.hub.files import write_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.hub.resolve import HubKeywords

ADAPTER_CONFIG_FILE = "adapter_config.json"
ALL_LINEAR = "all-linear"

_TYPE = "LORA"
_INITIAL = (True, False, "gaussian")
_ELSEWHERE = {"peft_type", "peft_version", "auto_mapping", "megatron_core", "qalora_group_size", "runtime_config"}
"""Fields of files that say what Loquent knows otherwise, or that have a meaning only with a field it refuses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What a LoRA adapter is.

    Args:
        r: the rank: how many rows A has, and columns B.
        lora_alpha: what B A is multiplied by, times the rank: the update is `lora_alpha / r * B A`.
        lora_dropout: the share of inputs of A that are dropped in training.
        target_modules: the linear layers to adapt, by the names of the checkpoint: a list of ends of names ("q_proj",
            "mlp.c_proj"), a regular expression for whole names, or "all-linear" for all but the head. None: the
            projections that give queries and values, whatever shares their matrix included.
        exclude_modules: of these, the ones to leave out: a list of ends of names, or a regular expression.
        bias: "none": biases are not trained, and Loquent has no other.
        use_rslora: multiply by `lora_alpha / sqrt(r)` instead (arXiv:2312.03732).
        modules_to_save: modules that are trained whole and saved with the adapter, such as a new head.
        task_type: what PEFT makes of the model ("CAUSAL_LM"); no meaning here.
        fan_in_fan_out: whether the checkpoint keeps the matrices transposed. The model's family knows; it is read and
            written for PEFT.
        layers_to_transform: a layer, or several, to adapt and no others, of those that a list of ends of names gives.
        layers_pattern: the name of the list that counts the layers ("layers", "h").
        rank_pattern: other ranks for some modules: `{"mlp.down_proj": 4}`, names or regular expressions of their ends.
        alpha_pattern: other values of lora_alpha in the same way.
        init_lora_weights: True: A is random (Kaiming uniform), B is zero. "gaussian": A is normal. False: both are
            random, for tests.
        inference_mode: whether it is frozen.
        base_model_name_or_path: the model that it was trained on.
        revision: the revision of that model.

    Raises:
        ConfigError: a field cannot work, or asks for what Loquent does not have.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] | None = None
    exclude_modules: str | tuple[str, ...] | None = None
    bias: str = "none"
    use_rslora: bool = False
    modules_to_save: tuple[str, ...] | None = None
    task_type: str | None = None
    fan_in_fan_out: bool = False
    layers_to_transform: int | tuple[int, ...] | None = None
    layers_pattern: str | tuple[str, ...] | None = None
    rank_pattern: dict[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: dict[str, float] = dataclasses.field(default_factory=dict)
    init_lora_weights: bool | str = True
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _coerced(field.name, getattr(self, field.name), hints[field.name]))
        self._check_numbers()
        self._check_names()
        if self.bias != "none":
            raise _refused("bias", self.bias, "is not available: only 'none' is. Biases are not trained with adapters.")
        if self.init_lora_weights not in _INITIAL:
            raise _refused(
                "init_lora_weights",
                self.init_lora_weights,
                "is not available: it would need the base model changed, or other mathematics. Use True or 'gaussian'.",
            )

    def _check_numbers(self) -> None:
        for name, rank in {"r": self.r, **self.rank_pattern}.items():
            if not 1 <= rank <= 2**20:
                raise _refused(name, rank, "is no rank. Use a number from 1, such as 8.")
        if not 0 <= self.lora_dropout < 1:
            raise _refused("lora_dropout", self.lora_dropout, "must be in 0 to 1, and below it.")

    def _check_names(self) -> None:
        if self.target_modules == ():
            raise _refused("target_modules", [], "names nothing. Name linear layers, or use 'all-linear'.")
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), str):
                check_regular(name, value)
        for name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, name):
                check_regular(name, pattern)
        for name in ("modules_to_save", "layers_pattern"):
            value = getattr(self, name) or ()
            for item in (value,) if isinstance(value, str) else value:
                if not is_name(item):
                    raise _refused(name, item, "is not the name of a module, such as 'lm_head' or 'layers'.")

    # --- what it says of a module ------------------------------------------------------------------------------------

    @property
    def by_regular_expression(self) -> bool:
        """Whether a regular expression says what is adapted."""
        targets = self.target_modules
        return (isinstance(targets, str) and targets != ALL_LINEAR) or isinstance(self.exclude_modules, str)

    def selects(self, module: str) -> bool:
        """Whether a module is adapted that the checkpoint calls so; None and "all-linear" are not for this to say."""
        targets = self.target_modules
        if targets is None or targets == ALL_LINEAR:
            return not self.leaves_out(module)
        if self.leaves_out(module) or not matches(module, targets):
            return False
        if isinstance(targets, str) or module in targets or self.layers_to_transform in (None, ()):
            return True
        wanted, lists = self.layers_to_transform, self.layers_pattern or ()
        layer = layer_of(module, (lists,) if isinstance(lists, str) else lists)
        return layer == wanted if isinstance(wanted, int) else layer in (wanted or ())

    def leaves_out(self, module: str) -> bool:
        """Whether a module is not adapted, whatever else says that it is."""
        return matches(module, self.exclude_modules or ()) or lies_in(module, self.modules_to_save or ())

    def rank(self, module: str) -> int:
        """The rank of a module's update."""
        return value_for(module, self.rank_pattern, self.r)

    def scaling(self, module: str) -> float:
        """What B A is multiplied by."""
        rank, alpha = self.rank(module), value_for(module, self.alpha_pattern, self.lora_alpha)
        return alpha / (sqrt(rank) if self.use_rslora else rank)

    # --- files -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LoraConfig:
        """The config in the fields of an adapter_config.json; those that ask for nothing may be others than ours.

        Raises:
            ConfigError: it is no LoRA, has a field that cannot work, or asks for what Loquent does not have.
        """
        kind = fields.get("peft_type", _TYPE)
        if kind != _TYPE:
            raise ConfigError(f"adapter_config.json: peft_type={kind!r} is not available: Loquent has {_TYPE} alone.")
        known = {field.name for field in dataclasses.fields(cls)}
        for name in sorted(set(fields) - known - _ELSEWHERE):
            if fields[name]:
                raise ConfigError(
                    f"adapter_config.json: {name}={str(fields[name])[:200]} is not available: Loquent has plain LoRA "
                    f"only.{hint(name, known)}"
                )
        return cls(**{name: value for name, value in fields.items() if name in known})

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **hub: Unpack[HubKeywords]) -> LoraConfig:
        """The config of an adapter's folder, or of its repository on the hub.

        Raises:
            ConfigError: as `from_dict`; or it has regular expressions that might take long.
            CheckpointError: there is no adapter_config.json.
            HubError: the name could not be resolved.
        """
        config = cls.from_dict(read_config_dict(name_or_path, ADAPTER_CONFIG_FILE, **hub))
        for name in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(config, name):
                check_of_file(name, pattern)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The fields of its adapter_config.json."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {**listed, "peft_type": _TYPE}

    def to_json_string(self) -> str:
        """The fields as JSON with sorted keys."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> Path:
        """Writes adapter_config.json into a folder, made if need be; returns its path.

        Raises:
            ArgumentError: the folder is a file, or cannot be made.
        """
        path = saving_folder(save_directory) / ADAPTER_CONFIG_FILE
        write_text(path, self.to_json_string())
        return path


def _coerced(name: str, value: Any, wanted: Any) -> Any:
    value = sorted(value) if isinstance(value, set | frozenset) else value
    value = {} if value is None and name.endswith("_pattern") and name != "layers_pattern" else value
    try:
        return coerce(value, wanted)
    except MismatchError:
        raise _refused(name, value, f"is of type {type(value).__name__}, but {describe(wanted)} is expected.") from None


def _refused(name: str, value: Any, problem: str) -> ConfigError:
    said = repr(value)
    return ConfigError(f"LoraConfig: {name}={said if len(said) <= 200 else said[:200] + '...'} {problem}")
