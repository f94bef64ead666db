"""A ragged batch: the tokens of several sequences packed end to end, with all that their layers need to know of them.

It is made once per step; positions, index tensors and masks are shared by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.parts import Decoder, Rotary
from loquent.torch.groups import Plan, Row
from loquent.torch.layers import Linears, call_layer
from loquent.torch.planning import Tables, plan_groups
from loquent.torch.positions import RotaryFrequencies, Turns
from loquent.torch.store import PageStore


@dataclass(eq=False)
class Batch:
    """Packed tokens of `rows`; every tensor is (tokens, ...) in the order of the rows."""

    rows: Sequence[Row]
    positions: Tensor  # (tokens,)
    plans: Sequence[Plan]  # of each layer; layers that read the same pages have the same
    turns: dict[Rotary, Turns]
    store: PageStore | None = None
    slots: Sequence[Tensor | slice] = ()  # of each layer: where the new entries go
    fresh: Sequence[tuple[Tensor, Tensor] | None] = ()  # of each layer: exact pages, and the ones to code them into
    linear: Linears = call_layer
    weights: dict[int, list[Tensor]] | None = None  # layer -> attention weights of each group, where wanted

    lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = [row.length for row in self.rows]

    def write(self, layer: int, entries: Sequence[Tensor]) -> None:
        """Remember the new tokens' keys and values in the store, if there is one, and code the pages that need it."""
        if self.store is None:
            return
        self.store.write(layer, self.slots[layer], entries)
        fresh = self.fresh[layer]
        if fresh is not None:
            self.store.code(layer, *fresh)

    def restore(self, layer: int, pieces: Sequence[Tensor]) -> Tensor:
        """The results of a layer's groups, (count, length, ...) each, packed in the order of the rows."""
        flat = [piece.flatten(0, 1) for piece in pieces]
        packed = flat[0] if len(flat) == 1 else torch.cat(flat)
        order = self.plans[layer].restore
        return packed if order is None else packed.index_select(0, order)


def make_batch(
    decoder: Decoder,
    rows: Sequence[Row],
    frequencies: RotaryFrequencies,
    device: torch.device,
    dtype: torch.dtype,
    *,
    positions: Tensor | None = None,
    store: PageStore | None = None,
    linear: Linears = call_layer,
    with_weights: bool = False,
) -> Batch:
    """The batch of `rows`; without `positions` (tokens,) each row's new tokens follow its past."""
    if positions is None:
        counted = [np.arange(row.past, row.past + row.length) for row in rows]
        positions = torch.from_numpy(np.concatenate(counted)).to(device, non_blocking=True)
    places = _places(decoder, rows, store, device)
    lengths, spans = [row.length for row in rows], [row.span for row in rows]
    turns = {}
    for block in decoder.blocks:
        rotary = block.attention.rotary
        if rotary is not None and rotary not in turns:
            cosines, sines = frequencies.turns(rotary, positions, lengths, spans)
            turns[rotary] = cosines.to(dtype), sines.to(dtype)
    return Batch(
        rows,
        positions,
        [place.plan for place in places],
        turns,
        store,
        [place.slots for place in places],
        [place.fresh for place in places],
        linear,
        {} if with_weights else None,
    )


class _Place(NamedTuple):
    """What a step does with the pages of a layer."""

    plan: Plan
    slots: Tensor | slice
    fresh: tuple[Tensor, Tensor] | None


def _places(decoder: Decoder, rows: Sequence[Row], store: PageStore | None, device: torch.device) -> list[_Place]:
    """That of each layer; those that read and write the same pages share one."""
    joined, layers = torch.is_grad_enabled(), range(len(decoder.blocks))
    if store is None:
        return [_Place(plan_groups(rows, None, device, joined=joined), slice(0, 0), None)] * len(layers)
    keys = [(store.exact_group[layer], store.coded_group.get(layer)) for layer in layers]
    places = {}
    for layer, (exact, coded) in zip(layers, keys):
        if (exact, coded) not in places:
            part = decoder.blocks[layer].attention
            tables = Tables(
                exact,
                store.groups[exact],
                store.page_size,
                store.pages(exact) * store.page_size,
                part.kv_heads * part.head_dim,
                None if coded is None else (coded, store.groups[coded]),
            )
            plan = plan_groups(rows, tables, device, joined=joined)
            fresh = None if coded is None else _fresh(rows, exact, coded, device)
            places[exact, coded] = _Place(plan, _slots(rows, exact, store.page_size, device), fresh)
    return [places[key] for key in keys]


def _fresh(rows: Sequence[Row], exact: int, coded: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The exact pages that are to be coded in this step, and the coded ones that they become."""
    sources, targets = [], []
    for row in rows:
        first = row.coded[coded]
        table = _table(row, coded)[first:]
        wanted = table >= 0  # what lies behind the window already need not be coded
        sources.append(_table(row, exact)[first : first + len(table)][wanted])
        targets.append(table[wanted])
    source, target = np.concatenate(sources), np.concatenate(targets)
    if not len(target):
        return None
    if source.min() < 0:
        raise ValueError("a page is to be coded whose exact numbers were given back")
    return torch.from_numpy(source).to(device), torch.from_numpy(target).to(device)


def _slots(rows: Sequence[Row], group: int, page_size: int, device: torch.device) -> Tensor | slice:
    """The slots of the new tokens; a slice where they are consecutive, which saves an index."""
    if len(rows) == 1 and rows[0].length == 1:
        row = rows[0]
        slot = int(_table(row, group)[row.past // page_size]) * page_size + row.past % page_size
        return slice(slot, slot + 1)
    pieces = []
    for row in rows:
        places = np.arange(row.past, row.past + row.length)
        pieces.append(_table(row, group)[places // page_size] * page_size + places % page_size)
    slots = np.concatenate(pieces)
    if int(slots[-1] - slots[0]) == len(slots) - 1 and bool((np.diff(slots) == 1).all()):
        return slice(int(slots[0]), int(slots[-1]) + 1)
    return torch.from_numpy(slots).to(device, non_blocking=True)


def _table(row: Row, group: int) -> NDArray[np.int64]:
    if not row.tables:
        raise ValueError("a row without pages cannot be written to a store")
    return row.tables[group]
