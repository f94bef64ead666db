"""Configurations as plain typed values: what a model is (`PretrainedConfig`) and how it writes (`GenerationConfig`)."""

from loquent.config.base import PretrainedConfig
from loquent.config.generation import GenerationConfig
from loquent.config.reading import read_config_dict
from loquent.config.rope import RotaryConfig

__all__ = ["GenerationConfig", "PretrainedConfig", "RotaryConfig", "read_config_dict"]
