"""What is learned from and what is kept back to measure with; who decides which is which knows the kind of data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")

HELD_OUT_SHARE = 0.05
# A text of which this share of its runs of so many words was learned from is a copy.
_COPIED, _RUN = 0.2, 6
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True)
class Split(Generic[Item]):
    """Documents or conversations, in order; none of the one list has its like in the other."""

    train: list[Item]
    held_out: list[Item]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def new_texts(learned: Iterable[str], texts: Sequence[str]) -> Iterator[bool]:
    """For each of `texts`, whether few of its runs of words stand in what is learned from."""
    runs = [_runs(text) for text in texts]
    wanted = set[str]().union(*runs)
    known = {run for text in learned for run in _runs(text) & wanted}
    for own in runs:
        yield len(own & known) <= _COPIED * len(own)


def _runs(text: str) -> set[str]:
    spoken = words(text)
    return {" ".join(spoken[start : start + _RUN]) for start in range(max(1, len(spoken) - _RUN + 1))}
