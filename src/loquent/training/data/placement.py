"""Best-fit decreasing: which pieces share a row, so that little of it is padding; it knows lengths only."""

from __future__ import annotations

import numpy as np

from loquent.training.data.examples import Ints


def best_fit_decreasing(lengths: Ints, room: int) -> Ints:
    """The bin of each piece, counted from 0: the longest first, each into the fullest bin that still has room for it.

    Johnson, 1973, "Near-optimal bin packing algorithms": at most 11/9 of the fewest bins and one more. Pieces of one
    length are taken in their order, so the result is a function of the lengths.

    Args:
        lengths: (pieces,) each from 1 to `room`.
        room: of each bin.
    """
    order = np.argsort(-lengths, kind="stable")
    bins = np.empty(len(lengths), np.int64)
    whole = int(np.count_nonzero(lengths == room))
    bins[order[:whole]] = np.arange(whole)
    bins[order[whole:]] = _placed(lengths[order[whole:]].tolist(), room, whole)
    return bins


def _placed(lengths: list[int], room: int, first: int) -> list[int]:
    """The bins of pieces that come longest first; `first` is the number of the first bin."""
    with_room: list[list[int]] = [[] for _ in range(room + 1)]
    # Bit r is set where a bin has r tokens of room: its lowest set bit from a length on is the fullest that fits.
    rooms, opened, placed = 0, first, []
    for length in lengths:
        fitting = rooms >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            chosen = with_room[left].pop()
            if not with_room[left]:
                rooms ^= 1 << left
        else:
            left, chosen = room, opened
            opened += 1
        placed.append(chosen)
        left -= length
        if left:
            with_room[left].append(chosen)
            rooms |= 1 << left
    return placed
