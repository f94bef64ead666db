"""Sequences that are read in a native store, as an engine would have them read."""

from __future__ import annotations

from typing import Any

import numpy as np

from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Segment
from properties.models import POSITIONS


def bits(rows: np.ndarray) -> np.ndarray:
    """The rows as integers, which NaNs and zeros of either sign do not confuse."""
    return np.array(rows).view(np.uint32)


class Reader:
    """A store, and sequences in it whose pages are scattered; those that no query can see any more hold rubbish."""

    def __init__(
        self, backend: Any, sequences: int, seed: int = 0, *, page_size: int = 4, kind: StoreKind = PLAIN
    ) -> None:
        self.backend, self.store = backend, backend.open_store(page_size, kind)
        pages, random = -(-POSITIONS // self.store.page_size), np.random.default_rng(seed)
        self.tables = []  # (sequences, pages) for each group
        for group in range(len(self.store.groups)):
            self.store.resize(group, sequences * pages)
            self.tables.append(random.permutation(sequences * pages).reshape(sequences, pages))
        self.lengths = [0] * sequences

    def segment(self, number: int, tokens: np.ndarray, span: int = 60) -> Segment:
        """What one sequence reads next."""
        size, start = self.store.page_size, self.lengths[number]
        self.lengths[number] = stop = start + len(tokens)
        tables = []
        for index, (group, pages) in enumerate(zip(self.store.groups, self.tables)):
            table = pages[number]
            gone = table[: group.first(start, size)]
            rubbish = gone[gone >= 0]
            self.store.write_pages(
                index, rubbish, np.full((len(rubbish), self.store.groups[index].bytes_per_page), 255, np.uint8)
            )
            gone[:] = -1
            tables.append(table[: group.stop(stop, size)])
        coded = tuple(0 if group.residual is None else group.stop(start, size) for group in self.store.groups)
        return Segment(tokens, start, tuple(tables), len(tokens), span, coded=coded)

    def read(self, pieces: dict[int, np.ndarray], span: int = 60) -> dict[int, np.ndarray]:
        """The bits of all rows of pieces that some sequences read next."""
        segments = [self.segment(number, tokens, span) for number, tokens in pieces.items()]
        logits = self.backend.run(self.store, segments).logits
        stops = np.cumsum([len(tokens) for tokens in pieces.values()])[:-1]
        return dict(zip(pieces, np.split(bits(logits), stops)))
