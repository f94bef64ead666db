"""Which engine runs a model, on which backend: chosen anew for each run, made again when something has moved."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from loquent.config import GenerationConfig
from loquent.decoding.pace import Kept
from loquent.engine import Backend, Engine
from loquent.engine.lending import Loan, Survey
from loquent.engine.reader import Reader
from loquent.native import why_unavailable
from loquent.parts import Decoder
from loquent.sizes import parse_size

KV_SHARE = 0.9
"""Of the memory that is free when an engine is made, how much its keys and values may take unless somebody says."""


@runtime_checkable
class Bound(Protocol):
    """What generation needs of a model."""

    decoder: Decoder
    generation_config: GenerationConfig

    @property
    def device(self) -> Any:
        """Where it runs: "cpu", or what prints as such."""

    @property
    def dtype(self) -> Any:
        """The type of its weights: "float32", or what prints as "torch.float32"."""

    @property
    def gives_tensors(self) -> bool:
        """Whether it continues ids that came as lists or arrays as tensors, or else as arrays; tensors are tensors."""

    def open_backend(self) -> Backend:
        """A backend that runs the model's current weights."""

    def backend_key(self) -> Hashable:
        """What a backend is made for, such as device and dtype: when it changes, another is needed."""


@runtime_checkable
class WithTokenizer(Protocol):
    """What has a model and its tokenizer, such as a `TextModel`."""

    model: Bound
    tokenizer: Any


@runtime_checkable
class Lender(Protocol):
    """A model with a backend of its own whose weights the native core can read too."""

    decoder: Decoder

    def open_backend(self, obstacle: str | None = None) -> Backend:
        """Its own backend; `obstacle` is why it is not the native one."""

    def backend_key(self) -> Hashable:
        """What its own backend is made for."""

    def survey_weights(self) -> Survey:
        """Whether the native core may run the model as it is now."""

    def lend_weights(self) -> Loan:
        """Its weights, where the survey found no obstacle."""


class EngineSlot:
    """Where a model keeps its engine. A copied or unpickled model starts with an empty one; so does a forked process:
    threads that it does not have may have held the old one's locks, and submitted its requests.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.key: Hashable = None
        self.engine: Engine | None = None
        self.kv_memory: int | None = None  # bytes that its engine may hold of keys and values, where somebody has said
        # What other models' engines, and its own one, read with it beside: drafts, other stores. By what each is for.
        self.readers: WeakKeyDictionary[Engine, dict[tuple[str, Hashable], Reader]] = WeakKeyDictionary()
        self.kept = Kept()  # how many tokens it drafts

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineSlot:
        return EngineSlot()

    def __reduce__(self) -> tuple[type[EngineSlot], tuple[()]]:
        return EngineSlot, ()


def engine_of(model: Bound) -> Engine:
    """The engine that runs a model, natively wherever nothing speaks against it (`engine.backend.describe()`)."""
    slot = slot_of(model)
    key, open_backend = opener_of(model)
    with slot.lock:
        if slot.engine is None or slot.key != key:
            backend = open_backend()
            slot.engine = Engine(backend, kv_memory=slot.kv_memory or _share_of_free_memory(backend))
            slot.key = key
        return slot.engine


def limit_kv_memory(model: Bound, size: int | str) -> None:
    """Let a model's engine hold so many bytes of keys and values in memory, by all of its requests together.

    Raises:
        ArgumentError: it is no size.
    """
    limit, slot = parse_size(size, "kv_memory"), slot_of(model)
    with slot.lock:
        slot.kv_memory, engine = limit, slot.engine
    if engine is not None:
        engine.kv_memory = limit


def _share_of_free_memory(backend: Backend) -> int | None:
    free = backend.free_memory()
    return None if free is None else int(free * KV_SHARE)


def slot_of(model: Bound) -> EngineSlot:
    """Where a model keeps its engine."""
    slot: EngineSlot = _slot_of(model) or vars(model).setdefault("_engine_slot", EngineSlot())
    return slot


def opener_of(model: Bound) -> tuple[Hashable, Callable[[], Backend]]:
    """What a backend of the model as it is now is made for, and how it is opened."""
    return _lent(model) if isinstance(model, Lender) else (model.backend_key(), model.open_backend)


def forget_engine(model: object) -> None:
    """Let go of a model's engine, and with it of the memory it reads, as when weights are moved; runs end on it."""
    slot = _slot_of(model)
    if slot is not None:
        with slot.lock:
            slot.engine = slot.key = None
            slot.readers.clear()


def _slot_of(model: object) -> EngineSlot | None:
    """Where the model keeps its engine in this process; None: it has none yet."""
    slot: EngineSlot | None = vars(model).get("_engine_slot")
    if slot is not None and slot.process != os.getpid():
        vars(model).pop("_engine_slot", None)
        return None
    return slot


def _lent(model: Lender) -> tuple[Hashable, Callable[[], Backend]]:
    """What the model's engine is made for as it is now, and how its backend is opened."""
    from loquent.native.lowering import why_not

    survey = model.survey_weights()
    obstacle = survey.obstacle or why_unavailable() or why_not(model.decoder)
    if obstacle:
        return ("own", obstacle, model.backend_key()), partial(model.open_backend, obstacle)
    return ("native", survey.places), lambda: _borrowing(model.lend_weights())


def _borrowing(loan: Loan) -> Backend:
    from loquent.native.lent import borrowing_backend

    return borrowing_backend(loan)
