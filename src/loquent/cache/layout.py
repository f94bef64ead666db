"""What a KV store is made of: plain data that requests, sequences and stores agree on; no memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.errors import ArgumentError


@dataclass(frozen=True)
class Coding:
    """Keys and values in a few bits, as in KIVI (Liu et al. 2024, 2402.02750): see `docs/memory.md` for the arithmetic.

    A page holds `group` tokens. Query t sees a page coded where the page ends `residual` or more tokens before the end
    of what t sees, itself included (`PageGroup.coded`), and exactly where it does not: that depends on the positions
    alone, not on how the text was cut into reads.
    """

    bits: int = 4
    group: int = 64  # tokens of a page and of a group of keys (of one channel); channels of a group of values
    residual: int = 128  # of the last tokens, at least so many are seen exactly
    library: str | None = None  # "quanto" or "hqq", which then do the arithmetic in their way; None: our own
    axis_key: int = 0  # for a library
    axis_value: int = 0


def check_coding(coding: Coding, bits: Sequence[int] = (1, 2, 4, 8)) -> None:
    """Raises ArgumentError where there cannot be such pages; `bits` are those that whoever codes them has."""
    if coding.bits not in bits:
        raise ArgumentError(f"bits={coding.bits} cannot be had from {coding.library or 'Loquent'}. Use one of {bits}.")
    if coding.group < 16 or coding.group % 16:
        raise ArgumentError(f"group={coding.group} must be a multiple of 16.")
    if coding.residual < 1:
        raise ArgumentError(f"residual={coding.residual} must be at least 1.")


def levels(bits: int) -> tuple[float, float]:
    """Where the numbers that codes stand for lie in the range of a group, from its smallest to its largest number.

    Returns how far above the smallest the first lies, as a part of the range, and how many steps it is from there to
    the largest. With 4 bits or more the first and last are the ends of the range. With 1 or 2 they are the centres of
    equal cells, as the ends are outliers: the perplexity of a small Llama rises by 2 % instead of 6 % at 2 bits.
    """
    return {1: (0.25, 1.5), 2: (0.125, 3.5)}.get(bits, (0.0, 2.0**bits - 1))


@dataclass(frozen=True)
class StoreKind:
    """How a request's keys and values are kept. The plain kind holds them as the backend computes them, in memory."""

    coding: Coding | None = None
    offloaded: bool = False  # on a GPU's host, or in a mapped file where the model runs on the CPU
    folder: str | None = None  # of such files; None: the system's for temporary files


PLAIN = StoreKind()


@dataclass(frozen=True)
class PageGroup:
    """Planes that share page tables: those of all layers that see the same span of tokens, in one form.

    A store has one group or more. Exact groups are written token by token. Coded ones (`residual` is not None) are
    written a page at a time, of exact pages, once the page lies so far back that a query sees it coded; their pages
    never change.
    """

    bytes_per_page: int
    window: int | None = None  # how many tokens a query sees, itself included; None: all
    residual: int | None = None

    def first(self, length: int, page_size: int) -> int:
        """The first page that queries at position `length` and behind may see."""
        return 0 if self.window is None else max(0, length + 1 - self.window) // page_size

    def stop(self, length: int, page_size: int) -> int:
        """How many pages there are, those before `first` counted, once `length` tokens have been read."""
        if self.residual is None:
            return -(-length // page_size)
        return max(0, length - self.residual) // page_size


@dataclass(frozen=True)
class LayerGroup:
    """Layers whose planes of one form share page tables; `window` and `residual` are those of its `PageGroup`."""

    layers: tuple[int, ...]
    window: int | None
    residual: int | None


def layer_groups(windows: Sequence[int | None], coding: Coding | None = None) -> list[LayerGroup]:
    """The groups of a store, in their order: exact ones first, each form by its first layer.

    Args:
        windows: how many tokens a query of each layer sees, itself included; None: all.
        coding: of a coded store. Layers whose window is within the residual are never seen coded. What the others
            see exactly is kept for one token longer: a page is coded when the first query sees it coded.
    """
    residual = None if coding is None else coding.residual
    exact: dict[int | None, list[int]] = {}
    coded: dict[int | None, list[int]] = {}
    for layer, window in enumerate(windows):
        if residual is None or (window is not None and window <= residual):
            exact.setdefault(window, []).append(layer)
        else:
            exact.setdefault(residual + 1, []).append(layer)
            coded.setdefault(window, []).append(layer)
    return [
        *(LayerGroup(tuple(layers), window, None) for window, layers in exact.items()),
        *(LayerGroup(tuple(layers), window, residual) for window, layers in coded.items()),
    ]
