"""Rows of packed pieces as arrays for a model that keeps segments apart; it decides neither order nor step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from loquent.errors import ArgumentError
from loquent.training.data.examples import Bools, Examples, Ints
from loquent.training.data.pieces import Pieces, cut
from loquent.training.data.placement import best_fit_decreasing

# The target where nothing is to be predicted; torch's cross entropy ignores it by default.
IGNORED = -100


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Rows of pieces, each of which a model must read as if it were alone.

    ids: (rows, length) tokens; behind the last piece of a row the padding's id.
    targets: (rows, length) the token that follows within the piece where the loss counts it, else -100.
    positions: (rows, length) from 0 in each piece, and in the padding.
    segments: (rows, length) int32, the number of the piece within its row, from 0; the padding is one more.
    counted: how many targets the loss counts.
    """

    ids: Ints
    targets: Ints
    positions: Ints
    segments: npt.NDArray[np.int32]
    counted: int


class Packs:
    """Documents cut into pieces, and the pieces placed into packs of exactly `length` tokens.

    Args:
        examples: the documents.
        length: of a pack, in tokens.
        padding_id: the id that fills what is left of a pack.
        breaks: for each id whether a piece may well end with it, see `cut`.
        truncate: keep only the first piece of a document that is longer than a pack.
        packing: False gives each piece a pack of its own.

    Raises:
        ArgumentError: the length is too small, or the loss counts nothing.
    """

    def __init__(
        self,
        examples: Examples,
        length: int,
        *,
        padding_id: int = 0,
        breaks: Bools | None = None,
        truncate: bool = False,
        packing: bool = True,
    ) -> None:
        if padding_id < 0:
            raise ArgumentError(f"padding_id={padding_id} is no token id.")
        self.examples = examples
        self.length = length
        self.padding_id = padding_id
        self.pieces: Pieces = cut(examples, length, breaks, truncate)
        bins = best_fit_decreasing(self.pieces.lengths, length) if packing else np.arange(len(self.pieces))
        # The pieces pack by pack, and where each pack's pieces begin among them.
        self._by_pack: Ints = np.argsort(bins, kind="stable")
        self._firsts: Ints = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(bins))])

    def __len__(self) -> int:
        return len(self._firsts) - 1

    @cached_property
    def counted(self) -> Ints:
        """(packs,) how many targets of each pack the loss counts."""
        return np.add.reduceat(self.pieces.counted[self._by_pack], self._firsts[:-1])

    @cached_property
    def padding(self) -> float:
        """The share of all rows that is padding."""
        return 1 - int(self.pieces.lengths.sum()) / (len(self) * self.length)

    def batch(self, packs: npt.NDArray[np.integer] | list[int]) -> PackedBatch:
        """The packs of these numbers, a row each.

        Raises:
            IndexError: there is no such pack.
        """
        chosen = np.asarray(packs, dtype=np.int64)
        rows, pieces, places = self._contents(chosen)
        lengths = self.pieces.lengths[pieces]
        # For each token that is no padding: its place in its piece, in the examples and in the batch.
        within = _counting(lengths)
        source = np.repeat(self.pieces.starts[pieces], lengths) + within
        row_starts = np.repeat(_running(lengths, rows, len(chosen)) + rows * self.length, lengths)
        target_place = row_starts + within
        batch = self._padding_rows(rows, lengths, len(chosen))
        batch.ids.reshape(-1)[target_place] = self.examples.tokens[source]
        batch.positions.reshape(-1)[target_place] = within
        batch.segments.reshape(-1)[target_place] = np.repeat(places, lengths)
        # A piece's tokens but the first are what is predicted, at the place before theirs.
        predicted = (within > 0) & self.examples.counted[source]
        batch.targets.reshape(-1)[target_place[predicted] - 1] = self.examples.tokens[source[predicted]]
        return PackedBatch(batch.ids, batch.targets, batch.positions, batch.segments, int(predicted.sum()))

    def fingerprint(self) -> str:
        """A hash of the documents, of how they were cut and of where the pieces are."""
        digest = hashlib.blake2b(self.examples.fingerprint().encode(), digest_size=16)
        digest.update(f"{self.length} {self.padding_id}".encode())
        for array in (self.pieces.starts, self.pieces.stops, self._by_pack, self._firsts):
            digest.update(array.astype("<i8").data)
        return digest.hexdigest()

    def _contents(self, packs: Ints) -> tuple[Ints, Ints, Ints]:
        """For each piece of these packs: its row, its number, and its place in the row."""
        if len(packs) and (packs.min() < 0 or packs.max() >= len(self)):
            raise IndexError(f"packs go from 0 to {len(self) - 1}, and {packs.min()} to {packs.max()} were asked for.")
        counts = self._firsts[packs + 1] - self._firsts[packs]
        places = _counting(counts)
        pieces = self._by_pack[np.repeat(self._firsts[packs], counts) + places]
        return np.repeat(np.arange(len(packs)), counts), pieces, places

    def _padding_rows(self, rows: Ints, lengths: Ints, count: int) -> PackedBatch:
        """Rows that are all padding, numbered as it is behind the pieces that they will hold."""
        shape = count, self.length
        used = np.bincount(rows, lengths, count).astype(np.int64)
        segments = np.bincount(rows, minlength=count).astype(np.int32)
        return PackedBatch(
            np.full(shape, self.padding_id, np.int64),
            np.full(shape, IGNORED, np.int64),
            np.arange(self.length) - used[:, None],
            np.repeat(segments[:, None], self.length, axis=1),
            0,
        )


def _counting(lengths: Ints) -> Ints:
    """0, 1, ... for each of the lengths, end to end."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _running(lengths: Ints, rows: Ints, count: int) -> Ints:
    """What lies before each piece in its row, where pieces come row by row."""
    before = np.cumsum(lengths) - lengths
    return before - before[np.searchsorted(rows, np.arange(count))][rows]
