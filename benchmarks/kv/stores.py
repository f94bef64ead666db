"""The stores that are measured, by the arguments of `loquent.load` and `generate()`, and what each should take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

OURS, PEER = "loquent", "transformers"

RESIDUAL = 32
GROUP = 32
"""Tokens of a coded page where texts are short; with 64, the default, less of them is coded."""

_FLOAT = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0}
_SCALE, _MASK = 4, 4  # bytes of a coded group's lowest level and step, of int8's scale, of a dynamic mask's value
_KEPT_BEHIND = 64  # tokens behind a window that stay, since drafts that are rewound make them visible again
_LANES = 16  # numbers of a vector: head_dim is padded to whole ones in the exact values of the native core


@dataclass(frozen=True)
class Store:
    """One way to keep keys and values."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of `generate()`
    key_values: str = "float32"  # of exact pages
    library: str = OURS
    model: str = "growing"  # of `kv.models`, where random weights do
    plain: bool = False  # what the others of its library are compared with

    @property
    def bits(self) -> int | None:
        """Of coded numbers; None: all are exact."""
        config: Mapping[str, int] = self.options.get("cache_config") or {}
        return config.get("nbits")

    @property
    def is_offloaded(self) -> bool:
        return self.options.get("cache_implementation") == "offloaded"


def coded(bits: int, group: int = GROUP, residual: int = RESIDUAL, key_values: str = "float32") -> Store:
    """Ours in a few bits."""
    config = {"nbits": bits, "q_group_size": group, "residual_length": residual}
    title = f"{bits} bit{'s' * (bits > 1)}, groups of {group}"
    return Store(title, {"cache_implementation": "quantized", "cache_config": config}, key_values)


def theirs(bits: int, backend: str, group: int = 64) -> Store:
    """That of transformers; its groups of 64 have a scale and a zero in float32 each."""
    config = {"backend": backend, "nbits": bits, "q_group_size": group, "residual_length": RESIDUAL}
    axes = {"axis_key": 0, "axis_value": 0}
    options = {"cache_implementation": "quantized", "cache_config": {**config, **axes}}
    return Store(f"transformers, {backend}, {bits} bit{'s' * (bits > 1)}", options, library=PEER)


PLAIN = Store("float32", plain=True)
BFLOAT16 = Store("bfloat16", key_values="bfloat16")
INT8 = Store("int8", key_values="int8")
OFFLOADED = Store("offloaded to a file", {"cache_implementation": "offloaded"})
THEIR_PLAIN = Store("transformers, dynamic", library=PEER, plain=True)
THEIR_OFFLOADED = Store("transformers, offloaded", {"cache_implementation": "offloaded"}, library=PEER)

PERPLEXITY = (
    PLAIN,
    BFLOAT16,
    *(coded(bits) for bits in (8, 4, 2, 1)),
    coded(2, group=64),
    THEIR_PLAIN,
    *(theirs(bits, "quanto") for bits in (4, 2)),
    *(theirs(bits, "HQQ") for bits in (8, 4, 2)),
)
MEMORY = (
    PLAIN,
    BFLOAT16,
    INT8,
    *(coded(bits, group=64) for bits in (8, 4, 2)),
    OFFLOADED,
    Store("float32, windows of 256", model="windowed"),
)
GROWTH = (PLAIN, OFFLOADED)
SPEED = (
    PLAIN,
    BFLOAT16,
    INT8,
    *(coded(bits, group=64) for bits in (8, 4, 2)),
    OFFLOADED,
    THEIR_PLAIN,
    THEIR_OFFLOADED,
    *(theirs(bits, "quanto") for bits in (4, 2)),
)


@dataclass(frozen=True)
class Shape:
    """What of a model says how large its keys and values are; all layers are equal."""

    layers: int
    kv_heads: int
    head_dim: int
    masked: bool = False  # whether there is a dynamic mask
    window: int | None = None  # how many tokens a query sees, itself included; None: all

    @property
    def numbers(self) -> int:
        """Keys of a token in one layer, or values."""
        return self.kv_heads * self.head_dim

    def exact(self, key_values: str) -> float:
        """Bytes of a token's exact keys and values."""
        padded = self.kv_heads * ceil(self.head_dim / _LANES) * _LANES
        scales = 2 * self.kv_heads * _SCALE if key_values == "int8" else 0
        return self.layers * ((self.numbers + padded) * _FLOAT[key_values] + scales + self._mask)

    def coded(self, bits: int, group: int) -> float:
        """Bytes of a token's coded keys and values: codes, and a level and a step of each group."""
        keys = self.numbers * (bits / 8 + _SCALE / group)
        values = self.numbers * bits / 8 + ceil(self.numbers / group) * _SCALE
        return self.layers * (keys + values + self._mask)

    @property
    def _mask(self) -> int:
        return self.kv_heads * _MASK if self.masked else 0


def expected_bytes(store: Store, shape: Shape, length: int, page: int = 16) -> int:
    """What the pages of one sequence take once `length` tokens have been read, the last one by itself."""
    if store.bits is None:
        return round(_pages(ceil(length / page), length, shape.window, page) * page * shape.exact(store.key_values))
    config = store.options["cache_config"]
    group, residual = config["q_group_size"], config["residual_length"]
    coded = 0 if _is_within(shape.window, residual) else max(0, length - residual) // group
    # An exact page is kept until the query behind the first that sees it coded.
    near = shape.window if _is_within(shape.window, residual) else residual + 1
    exact_tokens = _pages(ceil(length / group), length, near, group) * group
    coded_tokens = _pages(coded, length, shape.window, group) * group
    return round(exact_tokens * shape.exact(store.key_values) + coded_tokens * shape.coded(store.bits, group))


def _is_within(window: int | None, residual: int) -> bool:
    """Whether a layer's queries see nothing that is coded."""
    return window is not None and window <= residual


def _pages(stop: int, length: int, window: int | None, page: int) -> int:
    """How many pages there are before `stop` that the last query's window reaches, or that stay behind it."""
    return max(0, stop - (0 if window is None else max(0, length - _KEPT_BEHIND - window) // page))
