"""Rotary positions for packed tokens: the cosines and sines of a batch, made once and shared by its layers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from loquent.parts import Rotary
from loquent.rotary import frequencies, table_key

Turns = tuple[Tensor, Tensor]
"""Cosines and signed sines, (tokens, 1, rotated dimensions) each, in the dtype of the heads that they turn."""

_REMEMBERED = 64


class RotaryFrequencies:
    """Frequencies as tensors: a few per model, and the last `_REMEMBERED` made for requests whose scaling depends on
    their length."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Tensor, float]] = {}

    def turns(self, rotary: Rotary, positions: Tensor, lengths: Sequence[int], spans: Sequence[int]) -> Turns:
        """Float32 cosines and signed sines of `positions` (tokens,): packed rows of `lengths` growing to `spans`."""
        keys = [table_key(rotary, span) for span in spans]
        if len(set(keys)) == 1:
            return self._turn(rotary, keys[0], spans[0], positions)
        pieces = [
            self._turn(rotary, key, span, some)
            for key, span, some in zip(keys, spans, torch.split(positions, list(lengths)))
        ]
        return torch.cat([cosines for cosines, _ in pieces]), torch.cat([sines for _, sines in pieces])

    def _turn(self, rotary: Rotary, key: Hashable, span: int, positions: Tensor) -> Turns:
        frequency, factor = self._frequencies(rotary, key, span, positions.device)
        angles = positions.unsqueeze(1).float() * frequency  # (tokens, pairs)
        cosines, sines = angles.cos(), angles.sin()
        if factor != 1.0:
            cosines, sines = cosines * factor, sines * factor
        return torch.cat([cosines, cosines], 1).unsqueeze(1), torch.cat([-sines, sines], 1).unsqueeze(1)

    def _frequencies(self, rotary: Rotary, key: Hashable, span: int, device: torch.device) -> tuple[Tensor, float]:
        # Threads may meet here: at worst both make the same entry, and none is changed once made.
        found = self._known.get((rotary, key, device))
        if found is None:
            values, factor = frequencies(rotary, span)
            # Not an inference tensor, so that training may use what generating has made.
            with torch.inference_mode(False):
                found = torch.tensor(values, dtype=torch.float32, device=device), factor
            for oldest in list(self._known)[: max(0, len(self._known) - _REMEMBERED + 1)]:
                self._known.pop(oldest, None)
            self._known[rotary, key, device] = found
        return found


def turn(heads: Tensor, turns: Turns) -> Tensor:
    """Turn the first dimensions of `heads` (tokens, heads, head_dim) pair by pair, in half-split layout."""
    cosines, sines = turns
    size = cosines.shape[-1]
    turned = heads if size == heads.shape[-1] else heads[..., :size]
    turned = torch.addcmul(turned * cosines, turned.roll(size // 2, -1), sines)
    return turned if size == heads.shape[-1] else torch.cat([turned, heads[..., size:]], -1)
