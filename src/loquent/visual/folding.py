"""Folding: the middle of what is too long to look at is left out, and how much it was is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def folded(items: Sequence[Item], limit: int | None) -> tuple[list[Item], int, list[Item]]:
    """The first and the last of some items, at most `limit` together, and how many are missing between them.

    A third of the room is the end's. None for `limit` keeps everything.
    """
    if limit is None or len(items) <= limit:
        return list(items), 0, []
    end = limit // 3
    return list(items[: limit - end]), len(items) - limit, list(items[len(items) - end :])
