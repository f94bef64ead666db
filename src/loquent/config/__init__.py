"""Configurations as plain typed values: what a model is (`PretrainedConfig`) and how it writes (`GenerationConfig`)."""

from loquent.config.base import PretrainedConfig

__all__ = ["PretrainedConfig"]
