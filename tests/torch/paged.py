"""Page tables as an engine gives them: the same pages in each group, and none where no query looks any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loquent.engine.backend import Store


def resize(store: Store, pages: int) -> None:
    """Give every group so many pages."""
    for group in range(len(store.groups)):
        store.resize(group, pages)


def tables(store: Store, start: int, pages: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """A table for each group, of which those behind a window have lost the pages that nobody sees from `start` on."""
    made = []
    for group in store.groups:
        table = pages.copy()
        table[: group.first(start, store.page_size)] = -1
        made.append(table)
    return tuple(made)
