"""Assistants: models that draft for another one, opened as readers of its engine; they draft nothing here."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from loquent.config import GenerationConfig
from loquent.decoding.arguments.speculation import Assistant
from loquent.engine import Engine
from loquent.engine.reader import Reader
from loquent.errors import ArgumentError
from loquent.generation.binding import Bound, EngineSlot, WithTokenizer, opener_of, slot_of
from loquent.generation.readers import kept_reader

_WHOLE, _FIRST = "whole", "first"


def assistant_of(
    engine: Engine, model: Bound, config: GenerationConfig, assistant: Any, tokenizer: Any, assistant_tokenizer: Any
) -> Assistant | None:
    """Who drafts for a model by the arguments of `generate()`; None: no model does.

    Raises:
        ArgumentError: arguments that contradict each other, or lack one.
    """
    depth = config.assistant_early_exit
    if assistant_tokenizer is not None and (assistant is None or tokenizer is None):
        missing = "assistant_model=" if assistant is None else "tokenizer="
        raise ArgumentError(f"assistant_tokenizer is there, and {missing} is not. Pass both, or leave it out.")
    if depth is not None and assistant is not None:
        raise ArgumentError(f"assistant_early_exit={depth} and assistant_model both draft. Pass one of them.")
    if depth is not None:
        return _early_exit(engine, model, depth)
    if assistant is None:
        return None
    if isinstance(assistant, WithTokenizer):
        assistant = assistant.model
    if not callable(getattr(assistant, "open_backend", None)):
        raise ArgumentError(
            f"assistant_model={assistant!r:.80} is a {type(assistant).__name__}. Pass a model of loquent."
        )
    slot = slot_of(assistant)
    key, open_backend = opener_of(assistant)
    _forget_moved(slot, engine, key)
    reader = kept_reader(slot, engine, (_WHOLE, key), lambda: engine.add_reader(open_backend()))
    return Assistant(
        reader,
        reader.backend.vocabulary,
        reader.backend.max_positions,
        *_costs(reader, engine),
        assistant.generation_config,
        assistant_tokenizer,
        slot.kept,
    )


def _early_exit(engine: Engine, model: Bound, depth: int) -> Assistant:
    layers = engine.backend.layers
    if depth >= layers:
        raise ArgumentError(f"assistant_early_exit={depth} must be less than the model's {layers} layers.")
    slot = slot_of(model)
    reader = kept_reader(slot, engine, (_FIRST, depth), lambda: engine.add_reader(engine.backend.truncated(depth)))
    backend = reader.backend
    return Assistant(reader, backend.vocabulary, backend.max_positions, *_costs(reader, engine), kept=slot.kept)


def _forget_moved(slot: EngineSlot, engine: Engine, key: Hashable) -> None:
    """Let go of the reader of an assistant whose weights are elsewhere by now."""
    with slot.lock:
        known = slot.readers.get(engine, {})
        for old in [old for old in known if old[0] == _WHOLE and old[1] != key]:
            del known[old]


def _costs(reader: Reader, engine: Engine) -> tuple[float, float]:
    """Of a token, and of the host's work for it, in tokens of the engine's model."""
    whole = engine.backend.multiplications
    return reader.backend.multiplications / whole, reader.backend.host_work / whole
