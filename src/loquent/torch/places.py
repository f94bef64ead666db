"""What a step does with the pages of each layer: how they are attended, where new entries go, which pages are coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from loquent.parts import Decoder
from loquent.torch.groups import Plan, Row
from loquent.torch.planning import Tables, plan_groups

if TYPE_CHECKING:
    from loquent.torch.store import PageStore


@dataclass(frozen=True, eq=False)
class Place:
    """Pages that several layers have in common: of group `exact` of the store, and of `coded` if they have some."""

    plan: Plan
    window: int | None  # of these layers
    exact: int
    coded: int | None


def find_places(decoder: Decoder, rows: Sequence[Row], store: PageStore, device: torch.device) -> list[Place]:
    """The place of each layer; those that read and write the same pages share one."""
    places: dict[tuple[int, int | None], Place] = {}
    found = []
    for layer, block in enumerate(decoder.blocks):
        part, exact, coded = block.attention, store.exact_group[layer], store.coded_group.get(layer)
        if (exact, coded) not in places:
            tables = Tables(
                exact,
                store.groups[exact],
                store.page_size,
                store.pages(exact) * store.page_size,
                part.kv_heads * part.head_dim,
                None if coded is None else (coded, store.groups[coded]),
            )
            plan = plan_groups(rows, tables, device, joined=torch.is_grad_enabled())
            places[exact, coded] = Place(plan, part.window, exact, coded)
        found.append(places[exact, coded])
    return found


def slots_of(rows: Sequence[Row], group: int, page_size: int) -> NDArray[np.int64]:
    """The slots of the new tokens, (tokens,)."""
    pieces = []
    for row in rows:
        places = np.arange(row.past, row.past + row.length)
        pieces.append(table_of(row, group)[places // page_size] * page_size + places % page_size)
    return np.concatenate(pieces)


def fresh_pages(rows: Sequence[Row], exact: int, coded: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The exact pages that are to be coded in this step, and the coded ones that they become; None: there are none.

    Raises:
        ValueError: an exact page has been given back.
    """
    sources, targets = [], []
    for row in rows:
        numbers = fresh_numbers(row, coded)
        sources.append(table_of(row, exact)[numbers])
        targets.append(table_of(row, coded)[numbers])
    source, target = np.concatenate(sources), np.concatenate(targets)
    if not len(target):
        return None
    if source.min() < 0:
        raise ValueError("a page is to be coded whose exact numbers were given back")
    return source, target


def fresh_numbers(row: Row, coded: int) -> NDArray[np.int64]:
    """Which pages of a row are to be coded in this step; what lies behind the window already need not be."""
    first = row.coded[coded]
    return first + np.flatnonzero(table_of(row, coded)[first:] >= 0)


def table_of(row: Row, group: int) -> NDArray[np.int64]:
    """The page table of a row in a group.

    Raises:
        ValueError: it has none.
    """
    if not row.tables:
        raise ValueError("a row without pages cannot be written to a store")
    return row.tables[group]
