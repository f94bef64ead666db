"""The readers that an engine has beside its model's own, drafts' and those of other stores: opened once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from loquent.engine import Engine
from loquent.engine.reader import Reader
from loquent.generation.binding import EngineSlot

Key = tuple[str, Hashable]
"""What a reader is for, and which one of such."""


def kept_reader(slot: EngineSlot, engine: Engine, key: Key, add: Callable[[], Reader]) -> Reader:
    """The reader that an engine has for `key`, added if need be; it is the last of the slot's then."""
    with slot.lock:
        known = slot.readers.setdefault(engine, {})
        found = known.pop(key, None)
        if found is not None:
            known[key] = found
            return found
    made = add()  # without the slot's lock: who holds the engine's, which this takes, may be waiting for it
    with slot.lock:
        return known.setdefault(key, made)
