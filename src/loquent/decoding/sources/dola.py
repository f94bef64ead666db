"""DoLa: what the last layer knows that an early one does not (Chuang et al., 2023, arXiv:2309.03883).

    score(v) = log p_N(v) - log p_j(v) where p_N(v) >= 0.1 * max p_N, else -inf;  j = argmax over layers of D(N, j)
    D(N, j) = (KL(m | p_N) + KL(m | p_j)) / 2,  m = (p_N + p_j) / 2

p_j is what the head makes of layer j's state, without the final norm. Each row has a layer of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, log_softmax, namespace, to_numpy
from loquent.decoding.sources.base import Part, Source
from loquent.decoding.trace import LayerChosen
from loquent.decoding.wants import Block
from loquent.errors import ArgumentError

_DEEP = 40  # more layers than this are not all candidates
_MOST = 20  # of them, the lowest or highest so many are

# Divergences that agree to so many decimals count as equal, and the first layer is taken: float32 sums differ in their
# last digits with the company that a request has.
_DECIMALS = 6


@dataclass(frozen=True)
class DoLa(Source):
    """Contrasts the last layer with one of some `layers`, which count as `hidden_states` does: 0 is the embeddings."""

    layers: tuple[int, ...]
    relative_top: float = 0.1  # tokens with less than this share of the best one's probability are dropped

    @property
    def lenses(self) -> tuple[int, ...]:
        """The candidates."""
        return self.layers

    def change(self, part: Part) -> Block:
        """The contrast; the last layer alone decides where rules forbid all tokens that this leaves."""
        block, xp = part.block, namespace(part.block.logits)
        last, early = log_softmax(block.logits), [log_softmax(block.lenses[layer]) for layer in self.layers]
        divergences = np.zeros((last.shape[0], len(early)))
        if len(early) > 1:
            divergences = np.stack([_divergences(last, one) for one in early], axis=1)
        chosen = np.round(divergences, _DECIMALS).argmax(axis=1)
        if part.events is not None:
            part.events += [self._event(part.step + row, *pair) for row, pair in enumerate(zip(chosen, divergences))]
        base = early[0]
        for index in range(1, len(early)):
            base = xp.where(_mask(last, chosen == index), early[index], base)
        least = xp.max(last, axis=-1, keepdims=True) + math.log(self.relative_top)
        contrast = xp.where(last < least, xp.full_like(last, -math.inf), last - base)
        return replace(block, logits=contrast, spare=last)

    def _event(self, step: int, chosen: int, divergences: NDArray[np.float64]) -> LayerChosen:
        told = tuple(zip(self.layers, divergences.tolist())) if len(self.layers) > 1 else ()
        return LayerChosen(step, self.layers[chosen], told)


def _divergences(last: Array, early: Array) -> NDArray[np.float64]:
    """D of each row of log-probabilities, (rows,), in nats; the mean over the vocabulary orders layers alike."""
    xp = namespace(last)
    mean = (xp.exp(last) + xp.exp(early)) / 2
    logs = xp.log(xp.maximum(mean, xp.full_like(mean, 1e-37)))
    terms = mean * (logs - (last + early) / 2)
    return to_numpy(xp.sum(terms, axis=-1)).astype(np.float64)


def _mask(scores: Array, rows: NDArray[np.bool_]) -> Array:
    return beside(scores, rows)[:, None]


def candidate_layers(asked: Literal["low", "high"] | list[int], layers: int, tied: bool) -> tuple[int, ...]:
    """The candidates in a model of so many layers: "low", "high", or those listed.

    The lower half of a model whose head is its embedding starts at layer 2, since such a head finds in the embeddings
    just the token that was read; where that is past the half, it is the only candidate.

    Raises:
        ArgumentError: a layer is not there, or none is listed.
    """
    if asked == "low":
        start = (0, 0, 1, 2)[min(layers, 3)] if tied else 0
        stop = layers // 2 if layers <= _DEEP else _MOST
        return tuple(range(start, stop, 2)) or (start,)
    if asked == "high":
        return tuple(range(layers // 2 if layers <= _DEEP else layers - _MOST, layers, 2))
    if not asked:
        raise ArgumentError(
            'dola_layers=[] names no layer. Pass "low", "high", or at least one layer, or leave it out.'
        )
    bad = [layer for layer in asked if not 0 <= layer < layers]
    if bad:
        raise ArgumentError(
            f"dola_layers={list(asked)!r} names layer {bad[0]}. The layers to contrast with the last, {layers}, are 0 "
            f"(the embeddings) to {layers - 1}."
        )
    return tuple(dict.fromkeys(asked))
