"""What an engine holds for caches that programs keep: pages that no request reads, as long as there is room for them.

A program drops a cache at any moment, also within a step, where nobody may touch the pages' accounts; so what it held
is put in a queue, and given back when the engine next has the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from loquent.cache import PageSpace, Sequence
from loquent.cache.faces import Columns, Pages
from loquent.engine.fair_lock import FairLock
from loquent.errors import ArgumentError


class Holdings:
    """The pages that an engine holds for caches."""

    def __init__(self, lock: FairLock) -> None:
        self.lock = lock
        self.live: WeakSet[HeldPages] = WeakSet()
        self.left: deque[Sequence] = deque()  # what is to be closed

    def hold(self, space: PageSpace, texts: Items[NDArray[np.int64]], salts: Items[Any], layers: int) -> HeldPages:
        """Hold what a space remembers of the beginnings of these texts; `salts` are those of their sequences."""
        sequences = []
        for text, salt in zip(texts, salts):
            sequence = Sequence(space, span=len(text), salt=salt)
            sequence.adopt_prefix(text)
            sequences.append(sequence)
        return HeldPages(self, space, sequences, layers)

    def sweep(self) -> None:
        """Give back what caches held that are gone."""
        while self.left:
            self.left.popleft().close()

    def give_way(self) -> bool:
        """Hold nothing any more; whether there was anything. What was held is remembered until its pages are needed."""
        self.sweep()
        held = [sequence for pages in self.live for sequence in pages.sequences if sequence.stored]
        for sequence in held:
            sequence.evict()
        return bool(held)

    def forget(self, space: PageSpace) -> None:
        """Hold nothing of a space any more, nor let it be found: its weights have changed."""
        self.sweep()
        for sequence in [sequence for pages in self.live if pages.space is space for sequence in pages.sequences]:
            sequence.disown()
            sequence.evict()


class HeldPages(Pages):
    """A cache's pages in an engine's store, a sequence for each of its rows.

    What they lack, such as the tokens behind the last whole page, is read again by the request that needs it.
    """

    def __init__(self, holdings: Holdings, space: PageSpace, sequences: list[Sequence], layers: int) -> None:
        self.space, self.sequences, self._holdings, self._layers = space, sequences, holdings, layers
        holdings.live.add(self)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return self._layers

    def rewind(self, lengths: Items[int]) -> None:
        """Forget all but the first so many tokens of each row."""
        with self._holdings.lock:
            for sequence, length in zip(self.sequences, lengths):
                if length < len(sequence):
                    sequence.rewind(length)

    def select(self, rows: Items[int]) -> None:
        """Keep these rows, in this order; some may be repeated."""
        with self._holdings.lock:
            before, self.sequences = self.sequences, [self.sequences[row].fork() for row in rows]
            for sequence in before:
                sequence.close()

    def close(self) -> None:
        """Give the pages back."""
        with self._holdings.lock:
            for sequence in self.sequences:
                sequence.close()
            self.sequences = []

    def copy(self) -> HeldPages:
        """Others that hold the same."""
        with self._holdings.lock:
            forks = [sequence.fork() for sequence in self.sequences]
            return HeldPages(self._holdings, self.space, forks, self._layers)

    def layer(self, index: int, columns: Columns) -> tuple[Any, Any]:
        """Refuses: the engine's pages may be of any form.

        Raises:
            ArgumentError: always.
        """
        raise ArgumentError(
            "past_key_values was filled by generate(), which keeps keys and values in its own form. Pass it to the "
            "model's forward with the next tokens, and read them then."
        )

    def __del__(self) -> None:
        self._holdings.left.extend(self.sequences)
