"""`NativeBackend`: what an engine drives where a plan runs the model; the plan itself is compiled code."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PLAIN, StoreKind
from loquent.decoding.choice import Choice, Chosen
from loquent.engine.backend import Array, Forward, Segment, Store, check_depth, check_layers, check_states
from loquent.engine.host_memory import free_host_memory
from loquent.errors import ArgumentError
from loquent.native.extension import core
from loquent.native.lowering import Lowered, lower
from loquent.native.rotaries import RotaryTables
from loquent.native.store import NativeStore
from loquent.native.weights import Changes, Weights
from loquent.parts import Decoder
from loquent.rotary import table_key
from loquent.weights import multiplications

if TYPE_CHECKING:
    from loquent.native._core import Matrix

# Measured on two cores of an AMD EPYC with 32 MiB of L3 cache; what they decide is only how much is
# drafted. Weights of so many bytes stay in a cache mostly, and what the host does for one request in a
# pass takes as long as reading so many of them.
_CACHED, _HOST_BYTES = 32 << 20, 6_000_000
# How many rows of weights that come from memory a pass takes in about the time of one: of GPT-2 124M.
_FREE_ROWS = {"float32": 11, "bfloat16": 11, "float16": 11, "int8": 8, "int4": 6}

KEY_VALUE_KINDS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True, eq=False)
class _Made:
    """A plan with its rotary tables, and the version of the weights that it was made of."""

    lowered: Lowered
    tables: RotaryTables
    version: int


class NativeBackend:
    """A `loquent.engine.backend.Backend` that runs a composition's plan on the CPU.

    Args:
        decoder: the composition.
        weights: its weights.
        key_values: how keys and values are stored, one of `KEY_VALUE_KINDS`; None: float32 where all matrices are,
            else bfloat16.
        changes: word of the weights' changes; the plan is then made anew. None: they do not change.
        as_array: what logits and hidden states become, such as tensors over the same memory; None: they stay as they
            are, numpy arrays.

    Raises:
        ArgumentError: `key_values` is no such kind.
        NativeError: the native core is not there, or the composition has no plan.
    """

    selects = True
    row_work = 0
    """What drawing a token takes outside the pass."""

    def __init__(
        self,
        decoder: Decoder,
        weights: Weights,
        *,
        key_values: str | None = None,
        changes: Changes | None = None,
        as_array: Callable[[NDArray[np.float32]], Array] | None = None,
    ) -> None:
        if key_values is not None and key_values not in KEY_VALUE_KINDS:
            raise ArgumentError(f"key_values={key_values!r} must be one of {', '.join(KEY_VALUE_KINDS)}.")
        self.decoder = decoder
        self._weights, self._changes = weights, changes
        self._as_array = as_array or _as_it_is
        self._no_rows = self._as_array(np.zeros((0, decoder.vocabulary), np.float32))
        self._rotaries = {block.attention.rotary for block in decoder.blocks} - {None}
        self._blocks = len(decoder.blocks)  # of the whole model
        self._made = self._make()
        self._told = self._made.version  # of the weights, by `weights_changed`
        exact = all(matrix.kind == "float32" for matrix in self._made.lowered.matrices)
        self._bytes = sum(matrix.nbytes for matrix in self._made.lowered.matrices)
        self._key_values = key_values or ("float32" if exact else "bfloat16")

    def _make(self) -> _Made:
        version = 0 if self._changes is None else self._changes.version
        lowered = lower(self.decoder, self._weights)
        return _Made(lowered, RotaryTables(lowered.plan, lowered.rotaries), version)

    def _current(self) -> _Made:
        """What runs the weights as they were last seen, by whichever backend over them has looked."""
        if self._changes is not None and self._made.version != self._changes.version:
            self._made = self._make()
        return self._made

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return self.decoder.vocabulary

    @property
    def max_positions(self) -> int | None:
        """How many positions the model was made for."""
        return self.decoder.max_positions

    @property
    def incremental(self) -> bool:
        """Whether tokens may be read in several steps: yes, of all compositions that have plans."""
        return True

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.decoder.blocks)

    @property
    def tied(self) -> bool:
        """Whether the head's matrix is the embedding's."""
        return self.decoder.head.tied

    @property
    def multiplications(self) -> int:
        """How many numbers of its matrices a token is multiplied with."""
        return multiplications(self.decoder)

    @property
    def free_rows(self) -> int:
        """How many rows a pass takes in about the time of one, whose weights come from memory or from a cache.

        Of models a tenth as large as GPT-2 124M 4 to 6, whatever the precision.
        """
        return 4 if self._bytes <= _CACHED else min(_FREE_ROWS[matrix.kind] for matrix in self._made.lowered.matrices)

    @property
    def host_work(self) -> int:
        """What the engine does for a request in a pass, in multiplications: 50 to 100 us, as for 6 MB of weights."""
        return _HOST_BYTES * self.multiplications // self._bytes

    def describe(self) -> str:
        """What runs the model, such as "native (avx512, float32 in place, 2 threads)"."""
        matrices = self._made.lowered.matrices
        largest: Matrix = max(matrices, key=lambda matrix: matrix.nbytes)
        threads = core().threads()
        where = "" if largest.packed else " in place"
        what = f"{core().instruction_set()}, {largest.kind}{where}, {threads} thread{'s' * (threads > 1)}"
        some = "" if self.layers == self._blocks else f"; the first {self.layers} of {self._blocks} blocks"
        return f"native ({what}{some})"

    def free_memory(self) -> int | None:
        """How many bytes the host has left; None: nothing says."""
        return free_host_memory()

    def weights_changed(self) -> bool:
        """Whether the weights have changed since this was last asked; from then on the new ones are used."""
        if self._changes is None:
            return False
        told, self._told = self._told, self._changes.look()
        self._current()  # frees the copies of what has changed
        return told != self._told

    def open_store(self, page_size: int, kind: StoreKind = PLAIN) -> NativeStore:
        """A new store with no pages yet.

        Raises:
            ArgumentError: a kind that there is not on the CPU.
        """
        return NativeStore(self._made.lowered.layers, page_size, self._key_values, kind)

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: rotary scalings that depend on the span."""
        return frozenset((rotary, table_key(rotary, span)) for rotary in self._rotaries if rotary is not None)

    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        The rows are valid until the next run.

        Raises:
            IndexError: a token or page that is not there; nothing has been written then.
            TypeError: a store that no native backend opened.
            ValueError: segments that cannot be run otherwise, a store of another model, or a layer that is not there.
        """
        if not isinstance(store, NativeStore):
            raise TypeError(f"the store is no NativeStore but {type(store).__name__}.")
        if hidden_layers:
            check_layers(hidden_layers, self.layers)
        made = self._current()
        if made.tables.crowded(segments):
            made = self._made = self._make()
        logits, hidden, chosen = made.lowered.plan.run(store.memory, segments, made.tables.of(segments), hidden_layers)
        # There are none where every wanted row has been chosen from.
        rows = self._no_rows if logits is None else self._as_array(logits)
        states = {layer: self._as_array(state) for layer, state in hidden.items()}
        return Forward(rows, states, chosen, None if logits is None else _Rows(logits).choose)

    def head(self, states: Array) -> Array:
        """The logits (rows, vocabulary) of hidden states (rows, width), without the final norm.

        A row's are the same bits in any company, and those of `run` where its state is the last layer's.

        Raises:
            ValueError: states of another shape.
        """
        rows = np.ascontiguousarray(states, np.float32)
        check_states(rows.shape, self.decoder.width)
        return self._as_array(self._current().lowered.plan.score(rows))

    def truncated(self, depth: int) -> NativeBackend:
        """A backend over the same weights that has the first `depth` blocks, the final norm and the head.

        Raises:
            ValueError: `depth` is not in 1 to `layers` - 1.
        """
        check_depth(depth, self.layers)
        shallow = NativeBackend(
            replace(self.decoder, blocks=self.decoder.blocks[:depth]),
            self._weights,
            key_values=self._key_values,
            changes=self._changes,
            as_array=self._as_array,
        )
        shallow._blocks = self._blocks
        return shallow

    def profile(self) -> list[tuple[str, int, float]]:
        """The operations since the last call: name, calls, seconds. Collecting starts with the first call."""
        return self._made.lowered.plan.profile()


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """The logits of a run, (rows, vocabulary), until the next one."""

    logits: NDArray[np.float32]

    def choose(self, row: int, choice: Choice) -> Chosen:
        chosen: Chosen = core().choose(self.logits[row].copy(), choice)  # of which choosing leaves nothing
        return chosen


def _as_it_is(rows: NDArray[np.float32]) -> Array:
    return rows
