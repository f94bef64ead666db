"""Attention weights of packed groups, back in the padded shape that `output_attentions` promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loquent.parts import Decoder
from loquent.torch.batch import Batch
from loquent.torch.groups import Group
from loquent.torch.inputs import Packed


def unpack_weights(decoder: Decoder, batch: Batch, packed: Packed) -> tuple[Tensor, ...]:
    """Per layer (rows, heads, new columns, all columns), with zeros wherever one of the two is padding."""
    if batch.weights is None:
        return ()
    whole = np.concatenate([packed.past, packed.mask], 1)
    places = [np.flatnonzero(row) for row in whole]  # which column each token of a row is in
    present = np.flatnonzero(packed.mask.any(1))  # rows without a new token are not in the batch
    layers = []
    for layer, block in enumerate(decoder.blocks):
        pieces = batch.weights[layer]
        padded = pieces[0].new_zeros(len(whole), block.attention.heads, packed.shape[1], whole.shape[1])
        for group, weights in zip(batch.plans[layer].groups, pieces):
            firsts = group.keys(block.attention.window).first
            rows = [int(present[member]) for member in group.members]
            padded = _placed(padded, weights, group, firsts, rows, places, packed.past.shape[1])
        layers.append(padded)
    return tuple(layers)


def _placed(
    padded: Tensor,
    weights: Tensor,
    group: Group,
    firsts: Sequence[int],
    rows: list[int],
    places: list[NDArray[np.int64]],
    seen: int,
) -> Tensor:
    """`padded` with a group's weights (count, heads, new, positions), those from `firsts` on, in their places."""
    heads = torch.arange(padded.shape[1], device=padded.device)[:, None, None]
    for member, row in enumerate(rows):
        past, first = group.queries.pasts[member], firsts[member]
        stop = past + group.queries.length
        queries = torch.from_numpy(places[row][past:stop] - seen).to(padded.device)
        keys = torch.from_numpy(places[row][first:stop]).to(padded.device)
        known = weights[member, :, :, : stop - first]
        at = torch.full((), row, device=padded.device)
        padded = padded.index_put((at, heads, queries[:, None], keys), known)
    return padded
