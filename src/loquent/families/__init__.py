"""The registry of model families: what `config.json` calls a `model_type`, found by name and imported when asked for.

A family is plain data (`Family`): its config class, how its blocks are composed from parts, and what its checkpoints
call the tensors. It neither computes nor imports a tensor library; backends read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from loquent.errors import ConfigError

if TYPE_CHECKING:
    from loquent.config.base import PretrainedConfig
    from loquent.names import NameTable
    from loquent.parts import Decoder

_MODULES = {
    "doge": "loquent.families.doge",
    "gpt2": "loquent.families.gpt2",
    "gpt_bigcode": "loquent.families.gpt_bigcode",
    "gpt_neo": "loquent.families.gpt_neo",
    "gpt_neox": "loquent.families.gpt_neox",
    "llama": "loquent.families.llama",
}
"""Each model type's module, which holds its `FAMILY`."""


@dataclass(frozen=True)
class Family:
    """What is known of a model type.

    `compose(config)` gives the composition. `names(config)` gives the pieces of the base model under the names that a
    checkpoint of the base model alone uses, and the head's under their full names. `prefix` is what checkpoints of
    models with a head put before the base model's names, with a dot between.
    """

    model_type: str
    config: type[PretrainedConfig]
    compose: Callable[[Any], Decoder]
    names: Callable[[Any], NameTable]
    prefix: str


def model_types() -> tuple[str, ...]:
    """The model types that there are families for, in alphabetical order."""
    return tuple(sorted(_MODULES))


def family(model_type: str) -> Family:
    """The family of a model type; raises `ConfigError` for an unknown one."""
    if model_type not in _MODULES:
        raise ConfigError(
            f"model_type={model_type!r} is not a model type that Loquent has: {', '.join(model_types())}."
        )
    found = import_module(_MODULES[model_type]).FAMILY
    assert isinstance(found, Family)
    return found


def family_of(config: PretrainedConfig) -> Family:
    """The family that a config belongs to; raises `ConfigError` where its model type has none."""
    return family(config.model_type)
