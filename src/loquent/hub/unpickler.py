"""The pickle inside a `.bin` checkpoint, read by a machine that can only describe tensors; runs no code from it.

`torch.save` writes a zip archive: `data.pkl` describes the tensors, and `data/0`, `data/1`, ... hold their storages.
A pickle calls functions by name, which is how a hostile one runs code. Here every name resolves to one of a few inert
objects, and any other is an error; nothing is imported. Reading without torch also keeps the core free of it.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


class UnsafePickleError(Exception):
    """The pickle wants something that no description of tensors needs; the message says what."""


@dataclass(frozen=True)
class Storage:
    """A run of elements in the archive.

    key: the name of its entry below `data/`.
    dtype: the type of its elements (safetensors name).
    numel: how many elements it claims to have.
    """

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class PickledTensor:
    """A tensor as the pickle describes it: a strided view of a storage, counted in elements; nothing is checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Inert:
    """A stand-in for a function: can be called, and has no attributes that a pickle could set."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError(f"it sets {name} of a function")

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)


@dataclass(frozen=True)
class _StorageType:
    dtype: str


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> PickledTensor:
    # What follows is whether it needs a gradient, and hooks, which a checkpoint has none of.
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or not all(type(size) is int and size >= 0 for size in sizes):
        raise UnsafePickleError("it describes a tensor by something other than a storage and sizes")
    if len(shape) != len(stride) or len(shape) > 64:
        raise UnsafePickleError("it describes a tensor whose shape and strides differ in length")
    return PickledTensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(tensor: Any, *rest: Any) -> PickledTensor:
    if not isinstance(tensor, PickledTensor):
        raise UnsafePickleError("it describes a parameter by something other than a tensor")
    return tensor


_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}

_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Inert(lambda: OrderedDict()),
    ("torch._utils", "_rebuild_tensor_v2"): _Inert(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Inert(_rebuild_parameter),
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def _by_names(opcode: bytes) -> Callable[[Any], None]:
    """What puts pairs into a mapping, for names alone: hashing a pair of pairs of pairs of ... takes forever."""
    put = pickle._Unpickler.dispatch[opcode[0]]

    def run(machine: Any) -> None:
        keys = machine.stack[-2:-1] if opcode == pickle.SETITEM else machine.stack[::2]
        if any(type(key) is not str for key in keys):
            raise UnsafePickleError("it maps from something other than names")
        put(machine)

    return run


def _no_sets(machine: Any) -> None:
    raise UnsafePickleError("it makes a set")


# The pure Python machine: its memo is a dict, while the C one allocates whatever index a pickle claims to use.
class _Machine(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        **{opcode[0]: _by_names(opcode) for opcode in (pickle.DICT, pickle.SETITEM, pickle.SETITEMS)},
        **dict.fromkeys((pickle.ADDITEMS[0], pickle.FROZENSET[0]), _no_sets),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise UnsafePickleError(f"it wants {module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), _, int(numel)) if key.isalnum() and numel >= 0:
                return Storage(key, dtype, numel)
        raise UnsafePickleError("it refers to something other than a storage of the archive")


def read_pickle(data: bytes) -> dict[str, PickledTensor]:
    """The tensors that the `data.pkl` of a checkpoint describes.

    Raises:
        UnsafePickleError: the pickle is damaged, or is more than a mapping of names to tensors.
    """
    try:
        state = _Machine(io.BytesIO(data)).load()
    except UnsafePickleError:
        raise
    except Exception as error:
        # A damaged pickle can fail in any way at all.
        raise UnsafePickleError(f"it cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise UnsafePickleError(f"it holds a {type(state).__name__}, where a mapping of names to tensors is expected")
    # Not state.items(): a pickle may set attributes of an OrderedDict, that one among them.
    found = dict.items(state)
    for name, tensor in found:
        if not isinstance(tensor, PickledTensor):
            raise UnsafePickleError(
                f"its entry {name!r} is of type {type(tensor).__name__}, where a tensor is expected"
            )
    return dict(list(found))
