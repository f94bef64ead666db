"""A ragged batch: the tokens of several sequences packed end to end, with all that their layers need to know of them.

It is made once per step; positions, index tensors and masks are shared by every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loquent.parts import Decoder, Rotary
from loquent.torch.groups import Group, Plan, Row
from loquent.torch.keys import Queries
from loquent.torch.layers import Linears, call_layer
from loquent.torch.places import find_places
from loquent.torch.planning import plan_groups
from loquent.torch.positions import RotaryFrequencies, Turns
from loquent.torch.store import PageStore, StepPages


@dataclass(eq=False)
class Batch:
    """Packed tokens of `rows`; every tensor is (tokens, ...) in the order of the rows."""

    rows: Sequence[Row]
    positions: Tensor  # (tokens,)
    plans: Sequence[Plan]  # of each layer; layers that read the same pages have the same
    turns: dict[Rotary, Turns]
    pages: StepPages | None = None
    linear: Linears = call_layer
    weights: dict[int, list[Tensor]] | None = None  # layer -> attention weights of each group, where wanted

    lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = [row.length for row in self.rows]

    def write(self, layer: int, entries: Sequence[Tensor]) -> None:
        """Remember the new tokens' keys and values, if there is a store."""
        if self.pages is not None:
            self.pages.write(layer, entries)

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
    pages = None
    if store is not None:
        pages = store.open_step(rows, find_places(decoder, rows, store, device), device)
    turns = _turns(decoder, rows, frequencies, positions, dtype)
    return Batch(
        rows,
        positions,
        [plan_groups(rows, None, device, joined=False)] * len(decoder.blocks) if pages is None else pages.plans,
        turns,
        pages,
        linear,
        {} if with_weights else None,
    )


def make_packed_batch(
    decoder: Decoder, documents: Tensor, lengths: Sequence[int], frequencies: RotaryFrequencies, dtype: torch.dtype
) -> Batch:
    """The batch of packs, each of several documents that do not see each other; there is no store.

    `documents` (packs, tokens) numbers each token's document, each a run of tokens of one pack, and `lengths` has how
    many tokens each has, pack after pack. All packs are attended in one call.
    """
    count, size = documents.shape
    device = documents.device
    rows = [Row(length, 0, length) for length in lengths]
    positions = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])).to(device)
    several = None if len(rows) == count else documents
    members = tuple(range(count))
    group = Group(members, slice(0, count * size), Queries((0,) * count, size, device), None, False, several)
    for window in {block.attention.window for block in decoder.blocks}:
        group.keys(window)  # made here, so that compiled blocks only read
    turns = _turns(decoder, rows, frequencies, positions, dtype)
    return Batch(rows, positions, [Plan([group], None)] * len(decoder.blocks), turns)


def _turns(
    decoder: Decoder, rows: Sequence[Row], frequencies: RotaryFrequencies, positions: Tensor, dtype: torch.dtype
) -> dict[Rotary, Turns]:
    lengths, spans = [row.length for row in rows], [row.span for row in rows]
    turns = {}
    for block in decoder.blocks:
        rotary = block.attention.rotary
        if rotary is not None and rotary not in turns:
            cosines, sines = frequencies.turns(rotary, positions, lengths, spans)
            turns[rotary] = cosines.to(dtype), sines.to(dtype)
    return turns
