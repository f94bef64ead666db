"""Which model something was made by: a digest that is equal wherever the same weights are loaded again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from loquent.parts import Decoder


@runtime_checkable
class Identified(Protocol):
    """A model that can be told from others."""

    decoder: Decoder

    def sampled_weights(self) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
        """Each weight's canonical name, its type, and some of its rows."""


def identity_of(model: Identified) -> str:
    """A digest of a model's composition and of a sample of every weight.

    It costs little for a large model. Weights that differ in rows outside the samples alone have an equal digest.
    """
    return digest_of(model.decoder, model.sampled_weights())


def digest_of(decoder: Decoder, weights: Iterable[tuple[str, str, NDArray[np.float32]]]) -> str:
    """A digest of a composition and of samples of weights (name, type, rows), in whatever order they come."""
    digest = hashlib.blake2b(repr(decoder).encode(), digest_size=16)
    for name, kind, rows in sorted(weights, key=lambda weight: weight[0]):
        digest.update(f"{name} {kind} {rows.shape}".encode())
        digest.update(np.ascontiguousarray(rows).data.cast("B"))
    return digest.hexdigest()
