"""What a task of lm-eval asks to be written: its settings as a generation config, and where the text ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquent.config import GenerationConfig
from loquent.errors import ArgumentError, hint

# The names that tasks have for how many tokens are written, the one that holds first.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class GenerationRequest:
    """A context and what is to be written behind it."""

    context: str
    until: tuple[str, ...]
    new_tokens: int
    max_length: int | None  # of context and text together
    settings: Mapping[str, Any]  # fields of GenerationConfig

    def config(self, context_tokens: int, model: GenerationConfig, end: int) -> GenerationConfig:
        """The settings behind a context of so many tokens; `end` is the end token of a model that names none.

        Raises:
            ArgumentError: a setting is unknown or cannot work.
        """
        new = self.new_tokens if self.max_length is None else max(1, self.max_length - context_tokens)
        settings: dict[str, Any] = {**self.settings, "max_new_tokens": new}
        if self.until:
            settings["stop_strings"] = list(self.until)
        if model.eos_token_id is None:
            settings["eos_token_id"] = end
        unknown = sorted(set(settings) - set(GenerationConfig().to_dict()))
        if unknown:
            near = hint(unknown[0], GenerationConfig().to_dict())
            raise ArgumentError(f"generation_kwargs has {unknown}, which no generation config has.{near}")
        return GenerationConfig(**settings)

    def cut(self, text: str) -> str:
        """The text before the first of what ends it."""
        for stop in self.until:
            text = text.split(stop)[0]
        return text


def generation_request(context: str, settings: Mapping[str, Any], default_new_tokens: int) -> GenerationRequest:
    """A request as tasks write it: `until`, a length by any of its names, sampling, and other generation settings.

    Without `do_sample` a temperature above 0 asks for samples; with `do_sample: false` it has no effect.
    """
    left = dict(settings)
    lengths = [left.pop(name, None) for name in _LENGTHS]
    new = next((int(length) for length in lengths if length is not None), default_new_tokens)
    until = left.pop("until", None)
    until = [until] if isinstance(until, str) else until or []
    if not isinstance(until, list | tuple) or not all(isinstance(stop, str) for stop in until):
        raise ArgumentError(f"generation_kwargs has until={until!r}. Write a text, or a list of texts.")
    temperature = left.pop("temperature", None)
    samples = left.pop("do_sample", None)
    samples = bool(temperature) if samples is None else bool(samples)
    left["do_sample"] = samples
    if samples and temperature:
        left["temperature"] = float(temperature)
    longest = left.pop("max_length", None)
    return GenerationRequest(context, tuple(stop for stop in until if stop), new, longest, left)
