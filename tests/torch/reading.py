"""Texts read in pieces beside one another, each in pages of its own that lie anywhere or behind one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_models import VOCABULARY

from loquent.cache import StoreKind
from loquent.engine.backend import Segment, Store
from loquent.torch.runner import TorchBackend

PAGE = 4


@st.composite
def pieces_of(draw: st.DrawFn, most: int, rows: int = 4) -> list[list[int]]:
    """For each of some texts, how many tokens are read of it in each step."""
    texts = draw(st.lists(st.lists(st.integers(1, most), min_size=1, max_size=6), min_size=1, max_size=rows))
    return [fitting for text in texts if (fitting := _fitting(text, most))]


def _fitting(text: list[int], most: int) -> list[int]:
    stops = [stop for stop in np.cumsum(text) if stop <= most]
    return [int(stop - start) for start, stop in zip([0, *stops], stops)]


def text(length: int, seed: int) -> NDArray[np.int64]:
    """Tokens of a tiny model."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, length)


class Texts:
    """Sequences in a store; some hold pages that follow one another, as most do, and some have them anywhere."""

    def __init__(self, store: Store, count: int, length: int, seed: int) -> None:
        self.store, random = store, np.random.default_rng(seed)
        self._tables: list[list[NDArray[np.int64]]] = [[] for _ in range(count)]
        self.lengths = [0] * count
        each = -(-length // store.page_size) + 1
        for group in range(len(store.groups)):
            store.resize(group, each * count)
            orders = np.arange(each * count).reshape(count, each)
            scattered = np.flatnonzero(random.random(count) < 0.4)
            orders[scattered] = random.permutation(orders[scattered].ravel()).reshape(-1, each)
            for table, order in zip(self._tables, random.permutation(orders)):
                table.append(order)

    def segment(self, index: int, tokens: NDArray[np.int64]) -> Segment:
        """The next tokens of a text, which it holds then."""
        start, size, groups = self.lengths[index], self.store.page_size, self.store.groups
        stop = self.lengths[index] = start + len(tokens)
        tables = []
        for group, pages in zip(groups, self._tables[index]):
            table = pages[: group.stop(stop, size)].copy()
            table[: group.first(start, size)] = -1
            tables.append(table)
        known = tuple(group.stop(start, size) for group in groups)
        return Segment(tokens, start, tuple(tables), len(tokens), 100, coded=known)


def rows_of(backend: TorchBackend, kind: StoreKind, pieces: Sequence[Sequence[int]], seed: int) -> torch.Tensor:
    """The logits of all texts, step by step."""
    longest = max(sum(sizes) for sizes in pieces)
    texts = Texts(backend.open_store(PAGE, kind), len(pieces), longest, seed)
    found = []
    for step in range(max(map(len, pieces))):
        segments = []
        for index, sizes in enumerate(pieces):
            if step < len(sizes):
                start = texts.lengths[index]
                segments.append(texts.segment(index, text(longest, index)[start : start + sizes[step]]))
        found.append(backend.run(texts.store, segments).logits)
    return torch.cat(found)
