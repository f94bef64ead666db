"""`NativeBackend`: what an engine drives where a plan runs the model; the plan itself is compiled code."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loquent.engine.backend import Array, Forward, Segment, Store
from loquent.errors import ArgumentError
from loquent.native.extension import core
from loquent.native.lowering import lower
from loquent.native.rotaries import RotaryTables
from loquent.native.weights import Weights
from loquent.parts import Decoder
from loquent.rotary import table_key

if TYPE_CHECKING:
    from loquent.native._core import Matrix

KEY_VALUE_KINDS = ("float32", "bfloat16", "int8")


class NativeBackend:
    """A `loquent.engine.backend.Backend` that runs a composition's plan on the CPU.

    Args:
        decoder: the composition.
        weights: its weights.
        key_values: how keys and values are stored, one of `KEY_VALUE_KINDS`; None: float32 where all matrices are,
            else bfloat16.
        changed: whether weights have changed since this was last asked; the plan is then made anew. None: they cannot.
        as_array: what logits and hidden states become, such as tensors over the same memory; None: they stay as they
            are, numpy arrays.

    Raises:
        ArgumentError: `key_values` is no such kind.
        NativeError: the native core is not there, or the composition has no plan.
    """

    selects = True

    def __init__(
        self,
        decoder: Decoder,
        weights: Weights,
        *,
        key_values: str | None = None,
        changed: Callable[[], bool] | None = None,
        as_array: Callable[[NDArray[np.float32]], Array] | None = None,
    ) -> None:
        if key_values is not None and key_values not in KEY_VALUE_KINDS:
            raise ArgumentError(f"key_values={key_values!r} must be one of {', '.join(KEY_VALUE_KINDS)}.")
        self.decoder = decoder
        self._weights, self._changed = weights, changed
        self._as_array = as_array or _as_it_is
        self._no_rows = self._as_array(np.zeros((0, decoder.vocabulary), np.float32))
        self._rotaries = {block.attention.rotary for block in decoder.blocks} - {None}
        self._lower()
        exact = all(matrix.kind == "float32" for matrix in self._lowered.matrices)
        self._key_values = key_values or ("float32" if exact else "bfloat16")

    def _lower(self) -> None:
        self._lowered = lower(self.decoder, self._weights)
        self._plan = self._lowered.plan
        self._tables = RotaryTables(self._plan, self._lowered.rotaries)

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

    def describe(self) -> str:
        """What runs the model, such as "native (avx512, float32 in place, 2 threads)"."""
        matrices = self._lowered.matrices
        largest: Matrix = max(matrices, key=lambda matrix: matrix.nbytes)
        threads = core().threads()
        where = "" if largest.packed else " in place"
        return f"native ({core().instruction_set()}, {largest.kind}{where}, {threads} thread{'s' * (threads > 1)})"

    def weights_changed(self) -> bool:
        """Whether the weights have changed since this was last asked; from then on the new ones are used."""
        if self._changed is None or not self._changed():
            return False
        self._lower()
        return True

    def open_store(self, page_size: int) -> Store:
        """A new store with no pages yet."""
        store: Store = core().Store(self._lowered.layers, page_size, self._key_values)
        return store

    def prefix_key(self, span: int) -> Hashable:
        """What, besides its tokens, a sequence's keys and values depend on: rotary scalings that depend on the span."""
        return frozenset((rotary, table_key(rotary, span)) for rotary in self._rotaries if rotary is not None)

    def run(self, store: Store, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        """Read the segments: write their keys and values into the store, and give the wanted rows.

        The rows are valid until the next run.

        Raises:
            IndexError: a token or page that is not there; nothing has been written then.
            ValueError: segments that cannot be run otherwise, or a store of another model.
        """
        if self._tables.crowded(segments):
            self._lower()
        tables = self._tables.of(segments)
        logits, hidden, chosen = self._plan.run(store, segments, tables, hidden_layers)
        # There are none where every wanted row has been chosen from.
        rows = self._no_rows if logits is None else self._as_array(logits)
        return Forward(rows, {layer: self._as_array(state) for layer, state in hidden.items()}, chosen)

    def profile(self) -> list[tuple[str, int, float]]:
        """The operations since the last call: name, calls, seconds. Collecting starts with the first call."""
        return self._plan.profile()


def _as_it_is(rows: NDArray[np.float32]) -> Array:
    return rows
