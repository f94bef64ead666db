"""What the engine needs of something that runs a model; it knows backends by these protocols and never by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PLAIN, PageGroup, StoreKind
from loquent.decoding.choice import Choice, Chosen

Array = Any
"""An array of the backend's own library (numpy, torch, ...), used above it through the array API standard."""


@dataclass(eq=False, slots=True)
class Segment:
    """The tokens that one sequence has read in one step; a step's segments are packed end to end, without padding.

    The segment's tokens take the positions `start` to `start + len(tokens)` of its sequence. `tables` has a page table
    for each of the store's groups: position p lives in slot `p % page_size` of page `tables[g][p // page_size]`. Pages
    that no query of the segment sees, behind a window, may be -1. The table of a coded group has
    `group.stop(start + len(tokens), page_size)` pages, of which the first `coded[g]` hold what they are to hold: the
    others are to be coded in this step, of the exact pages, before its queries read.

    The arrays and the choice are the engine's own: they hold for the step, and a backend that keeps them copies them.
    """

    tokens: NDArray[np.int64]  # (n,), n >= 1
    start: int  # how many tokens of the sequence the store holds already
    tables: tuple[NDArray[np.int64], ...]  # (pages,) for each group
    rows: int  # how many of the last tokens want a row: 0 (a chunk of a prompt), 1, or more
    span: int  # the longest the sequence may become: fixes rotary scalings that depend on the length
    choice: Choice | None = None  # how the last row is answered, where the backend `selects`; it alone is scored then
    scored: int | None = None  # how many of the last of its rows want logits, not hidden states alone; None: all
    coded: tuple[int, ...] = ()  # for each group, where the store has coded ones

    @property
    def logit_rows(self) -> int:
        """How many rows of logits it gets."""
        return self.rows if self.scored is None else self.scored


@dataclass(eq=False, slots=True)
class Forward:
    """What a step gives back: rows of all segments, in the order of the segments and of the tokens in each.

    There is a row of hidden states for each of a segment's `rows`, and one of logits for those that are `scored`.
    Layers count as `hidden_states` does in transformers: 0 is what the first block reads (the embeddings, learned
    positions added), layer i what block i of 1 to `Backend.layers` gives, and the last one is taken behind the final
    norm: the head reads it.

    Arrays may be the backend's own memory, right until it runs again. The row of a segment with a choice is used up by
    choosing, and holds anything; where all rows are, there may be no logits.
    """

    logits: Array  # (scored rows, vocabulary), float32
    hidden: Mapping[int, Array] = field(default_factory=dict)  # layer -> (rows, width), those that were asked for
    chosen: Sequence[Chosen | None] = ()  # the answer to each segment's choice, None where it has none; () where no has
    # Where the backend `selects`: the answer to another choice, from row i of the logits, which stays as it is.
    choose: Callable[[int, Choice], Chosen] | None = None


class Store(Protocol):
    """The memory behind the pages of one model; who uses which page is decided above it (`loquent.cache`)."""

    @property
    def page_size(self) -> int:
        """Tokens per page, of all groups."""

    @property
    def groups(self) -> Sequence[PageGroup]:
        """What its pages are made of; each group numbers its pages by itself."""

    @property
    def place(self) -> str:
        """Where the pages are: "memory" (the device's, or the process's), "host" or "file"."""

    @property
    def format(self) -> str:
        """What the bytes of `read_pages` mean: equal where another store of this or another process can take them."""

    def pages(self, group: int) -> int:
        """How many pages of a group there are now."""

    def resize(self, group: int, pages: int) -> None:
        """Grow or shrink a group to `pages`; pages below the smaller of both counts keep their content."""

    def clear(self, group: int, pages: Sequence[int]) -> None:
        """Fill whole pages with zeros, all layers and planes of the group."""

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole pages, all layers and planes of the group; no page is both a source and a target."""

    def read_pages(self, group: int, pages: Sequence[int]) -> NDArray[np.uint8]:
        """The content of whole pages, (pages, bytes_per_page)."""

    def write_pages(self, group: int, pages: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Put content that `read_pages` gave, (pages, bytes_per_page), into whole pages."""


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

    @property
    def tied(self) -> bool:
        """Whether the head's matrix is the embedding's."""

    @property
    def multiplications(self) -> int:
        """How many numbers of its matrices a token is multiplied with: what reading it costs, beside other models."""

    @property
    def free_rows(self) -> int:
        """How many rows a pass takes in about the time of one, roughly: what its computing has left beside memory."""

    @property
    def host_work(self) -> int:
        """What a pass for a request takes besides its multiplications, in as many of them: launching it, the engine."""

    @property
    def row_work(self) -> int:
        """What drawing a token from a row takes outside the pass, in multiplications: 0 where it `selects`."""

    def describe(self) -> str:
        """What runs the model, in a few words for people."""

    def free_memory(self) -> int | None:
        """How many bytes are left where its stores are: the host's, or the device's; None: nothing says."""

    def weights_changed(self) -> bool:
        """Whether keys and values that were computed before this was last asked may be wrong by now.

        A backend and what it was `truncated` to are asked each for itself, in any order.
        """

    def open_store(self, page_size: int, kind: StoreKind = PLAIN) -> Store:
        """A new store with no pages yet; a coded one has pages of `kind.coding.group` tokens.

        Raises:
            ArgumentError: a kind that the backend cannot have; says why, and what to do.
            MissingExtraError: a library that is not installed.
        """

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: equal keys may share pages."""

    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        Segments of one call may share pages before their `start`, but write to pages of their own.

        Args:
            store: what this backend opened.
            segments: what is read.
            hidden_layers: the layers whose states are wanted too, of 0 to `layers`.
        """

    def head(self, states: Array) -> Array:
        """The logits (rows, vocabulary) of hidden states (rows, width), without the final norm, in float32.

        Of the last layer's states, which have passed it, these are the logits of `run`; of an earlier layer's, what
        that layer would say. The result is memory of its own. Several threads may ask at once, also while one runs.
        """

    def truncated(self, depth: int) -> Backend:
        """A backend over the same weights, not copied, that has the first `depth` blocks, the final norm and the head.

        It needs stores of its own (`open_store`), and follows the weights where they change.

        Raises:
            ValueError: `depth` is not in 1 to `layers` - 1.
        """


def check_layers(hidden_layers: Sequence[int], layers: int) -> None:
    """Raises ValueError where one of the hidden layers is not there."""
    for layer in hidden_layers:
        if not 0 <= layer <= layers:
            raise ValueError(f"there is no layer {layer} of 0 to {layers}")


def check_states(shape: Sequence[int], width: int) -> None:
    """Raises ValueError where hidden states are not (rows, width)."""
    if len(shape) != 2 or shape[1] != width:
        raise ValueError(f"states have shape {tuple(shape)}, not (rows, {width})")


def check_depth(depth: int, layers: int) -> None:
    """Raises ValueError where a model of so many blocks cannot be truncated to `depth`."""
    if not 1 <= depth < layers:
        raise ValueError(f"depth={depth} is not in 1 to {layers - 1}")
