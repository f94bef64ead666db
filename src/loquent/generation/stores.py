"""Stores of other kinds than the plain one: the readers of a model's engine that keep keys and values so."""

from __future__ import annotations

from loquent.cache import PLAIN, StoreKind
from loquent.engine import Backend, Engine
from loquent.engine.reader import Reader
from loquent.errors import ArgumentError
from loquent.generation.binding import Bound, EngineSlot, Lender, slot_of
from loquent.generation.readers import kept_reader
from loquent.native.backend import NativeBackend

MOST_KEPT = 4
"""How many stores of further kinds a model keeps for its next calls."""

_KEY = "store"


def home_of(engine: Engine, model: Bound, kind: StoreKind) -> Reader | None:
    """The reader of a model's engine that keeps keys and values in a store of a kind; None: the engine's own does.

    Raises:
        ArgumentError: the model cannot have such a store.
        MissingExtraError: a library that it needs is not installed.
    """
    if kind == PLAIN:
        return None
    slot = slot_of(model)
    reader = kept_reader(slot, engine, (_KEY, kind), lambda: engine.add_reader(_backend(engine, model, kind), kind))
    _forget_oldest(slot, engine)
    return reader


def _backend(engine: Engine, model: Bound, kind: StoreKind) -> Backend:
    """What reads with such a store: the engine's own backend, or torch, whose tensors a library codes."""
    library = kind.coding.library if kind.coding else None
    if library is None or not isinstance(engine.backend, NativeBackend):
        return engine.backend
    if not isinstance(model, Lender):
        raise ArgumentError(
            f"cache_config: backend={library!r} codes tensors of PyTorch, and a {type(model).__name__} has none. "
            'Pass backend="native", or load the model with AutoModelForCausalLM, without quantization.'
        )
    return model.open_backend(f"{library} codes its keys and values")


def _forget_oldest(slot: EngineSlot, engine: Engine) -> None:
    """Let go of the stores that were used longest ago; one that requests still read with lasts as long as they."""
    with slot.lock:
        known = slot.readers.get(engine, {})
        for key in [key for key in known if key[0] == _KEY][:-MOST_KEPT]:
            del known[key]
