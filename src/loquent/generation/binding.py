"""Which engine runs a model: made when the model first generates, kept with it, and made again when it has moved."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, Protocol

from loquent.config import GenerationConfig
from loquent.engine import Backend, Engine


class Bound(Protocol):
    """What generation needs of a model."""

    generation_config: GenerationConfig

    def open_backend(self) -> Backend:
        """A backend that runs the model's current weights."""

    def backend_key(self) -> Hashable:
        """What a backend is made for, such as device and dtype: when it changes, another is needed."""


class EngineSlot:
    """Where a model keeps its engine. A copied or unpickled model starts with an empty one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key: Hashable = None
        self.engine: Engine | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineSlot:
        return EngineSlot()

    def __reduce__(self) -> tuple[type[EngineSlot], tuple[()]]:
        return EngineSlot, ()


def engine_of(model: Bound) -> Engine:
    """The engine that runs a model."""
    slot: EngineSlot = vars(model).setdefault("_engine_slot", EngineSlot())
    key = model.backend_key()
    with slot.lock:
        if slot.engine is None or slot.key != key:
            slot.engine, slot.key = Engine(model.open_backend()), key
        return slot.engine
