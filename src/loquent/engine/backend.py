"""What the engine needs of something that runs a model; it knows backends by these protocols and never by name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.choice import Choice, Chosen

Array = Any
"""An array of the backend's own library (numpy, torch, ...), used above it through the array API standard."""


@dataclass(eq=False, slots=True)
class Segment:
    """The tokens that one sequence has read in one step; a step's segments are packed end to end, without padding.

    The segment's tokens take the positions `start` to `start + len(tokens)` of its sequence, and their keys and values
    go to the same slots of `pages`: position p lives in slot `p % page_size` of page `pages[p // page_size]`.

    The arrays and the choice are the engine's own: they hold for the step, and a backend that keeps them copies them.
    """

    tokens: NDArray[np.int64]  # (n,), n >= 1
    start: int  # how many tokens of the sequence the store holds already
    pages: NDArray[np.int64]  # (ceil((start + n) / page_size),)
    rows: int  # how many of the last tokens want a row of logits: 0 (a chunk of a prompt), 1, or more
    span: int  # the longest the sequence may become: fixes rotary scalings that depend on the length
    choice: Choice | None = None  # how the last row is answered, where the backend `selects`; `rows` is 1 then


@dataclass(eq=False, slots=True)
class Forward:
    """What a step gives back: rows of all segments, in the order of the segments and of the tokens in each.

    Arrays may be the backend's own memory, right until it runs again. The row of a segment with a choice is used up by
    choosing, and holds anything.
    """

    logits: Array  # (rows, vocabulary), float32
    hidden: Mapping[int, Array] = field(default_factory=dict)  # layer -> (rows, width); 0 is the embeddings' output
    chosen: Sequence[Chosen | None] = ()  # the answer to each segment's choice, None where it has none; () where no has


class Store(Protocol):
    """The memory behind the pages of one model; who uses which page is decided above it (`loquent.cache`)."""

    @property
    def bytes_per_page(self) -> int:
        """The memory of one page, all layers and planes."""

    @property
    def pages(self) -> int:
        """How many pages there are now."""

    def resize(self, pages: int) -> None:
        """Grow or shrink to `pages`; pages below the smaller of both counts keep their content."""

    def clear(self, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros, all layers and planes."""

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, all layers and planes; no page is both a source and a target."""


class Backend(Protocol):
    """A model that reads ragged batches against a page store."""

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""

    @property
    def max_positions(self) -> int | None:
        """How many positions a sequence may have; None: any number."""

    @property
    def incremental(self) -> bool:
        """Whether tokens may be read in several steps (see `Decoder.incremental`)."""

    @property
    def selects(self) -> bool:
        """Whether it answers the choices of segments; where not, segments have none."""

    @property
    def layers(self) -> int:
        """How many blocks there are."""

    def describe(self) -> str:
        """What runs the model, in a few words for people."""

    def weights_changed(self) -> bool:
        """Whether keys and values that were computed before this was last asked may be wrong by now."""

    def open_store(self, page_size: int) -> Store:
        """A new store with no pages yet."""

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: equal keys may share pages."""

    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        Segments of one call may share pages before their `start`, but write to pages of their own.
        """
