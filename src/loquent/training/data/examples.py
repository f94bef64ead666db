"""Tokenized documents held flat in three arrays; it neither tokenizes nor cuts anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loquent.errors import ArgumentError
from loquent.training.data.order import permutation

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
# The key of the permutation that a split takes documents from; epochs have the keys from 0 on.
_SPLIT = 2**63


@dataclass(frozen=True, eq=False)
class Examples:
    """Documents end to end, and which of their tokens the loss counts.

    tokens: (tokens,) ids; uint16 where the vocabulary fits, else uint32.
    counted: (tokens,) whether the loss counts the prediction of this token; never of a document's first.
    starts: (documents + 1,) where each document begins, and where the last one ends.
    """

    tokens: Tokens
    counted: Bools
    starts: Ints

    def __post_init__(self) -> None:
        ends = self.starts[0] == 0 and self.starts[-1] == len(self.tokens) if len(self.starts) else False
        if not ends or len(self.counted) != len(self.tokens) or np.any(np.diff(self.starts) < 1):
            raise ArgumentError(
                f"Examples of {len(self.tokens)} tokens, {len(self.counted)} marks and {len(self.starts)} starts: "
                "starts must ascend from 0 to the number of tokens, and each token must have a mark."
            )
        first = self.starts[:-1]
        if np.any(self.counted[first]):
            raise ArgumentError("counted is True for a document's first token, which nothing predicts.")

    @classmethod
    def of_ids(cls, documents: Iterable[Sequence[int] | npt.NDArray[np.integer]], vocabulary_size: int) -> Examples:
        """Documents of ids below `vocabulary_size`, of which every token but the first counts.

        Raises:
            ArgumentError: an id is not in the vocabulary, or there is no document.
        """
        collector = Collector(vocabulary_size)
        for tokens in documents:
            collector.add(tokens)
        return collector.examples()

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """The documents of several, in this order.

        Raises:
            ArgumentError: there are none.
        """
        if not parts:
            raise ArgumentError("parts=[]: there are no examples to join.")
        offsets = np.cumsum([0, *(len(part.tokens) for part in parts)])
        starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets)]
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.counted for part in parts]),
            np.concatenate([*starts, offsets[-1:]]),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counted_tokens(self) -> int:
        """How many tokens the loss counts."""
        return int(np.count_nonzero(self.counted))

    def document(self, index: int) -> tuple[Tokens, Bools]:
        """The tokens of a document and their marks."""
        span = slice(self.starts[index], self.starts[index + 1])
        return self.tokens[span], self.counted[span]

    def chosen(self, indices: Sequence[int] | Ints) -> Examples:
        """Some of the documents, in the order of the indices."""
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        tokens = np.empty(starts[-1], self.tokens.dtype)
        counted = np.empty(starts[-1], np.bool_)
        for document, begin, end in zip(chosen, starts[:-1], starts[1:]):
            tokens[begin:end], counted[begin:end] = self.document(document)
        return Examples(tokens, counted, starts)

    def split(self, share: float, seed: int = 0) -> tuple[Examples, Examples]:
        """The documents to train on, and `share` of the documents (at least one) held out for evaluation.

        Which ones follows from the seed and the number of documents, not from what is in them; both keep their order.

        Raises:
            ArgumentError: the share is not between 0 and 1, or would leave nothing on one side.
        """
        if not 0 < share < 1:
            raise ArgumentError(f"share={share!r} of the documents to hold out must be between 0 and 1.")
        count = max(1, round(share * len(self)))
        if count >= len(self):
            raise ArgumentError(
                f"share={share!r} of {len(self)} documents leaves none to train on. Give a file for evaluation, or "
                "separate the documents in the text with lines <|endoftext|>."
            )
        held_out = np.zeros(len(self), np.bool_)
        held_out[permutation(len(self), seed, _SPLIT)[:count]] = True
        return self.chosen(np.flatnonzero(~held_out)), self.chosen(np.flatnonzero(held_out))

    def fingerprint(self) -> str:
        """A hash of everything that is in here, by which a checkpoint knows its data again."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.tokens, self.counted, self.starts):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Collector:
    """Gathers documents one by one into Examples; what it holds meanwhile is at most a quarter more than the result.

    Args:
        vocabulary_size: ids are below it.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        small = vocabulary_size <= 1 << 16
        self._tokens: Tokens = np.empty(1 << 16, np.uint16 if small else np.uint32)
        self._counted: Bools = np.empty(1 << 16, np.bool_)
        self._lengths: list[int] = []
        self._used = 0

    def add(self, tokens: Sequence[int] | npt.NDArray[np.integer], counted: npt.ArrayLike = True) -> None:
        """Add a document, of which the loss counts all tokens but the first, or those marked in `counted`.

        A document without tokens is left out.

        Raises:
            ArgumentError: an id is not in the vocabulary.
        """
        count = len(tokens)
        if not count:
            return
        ids = np.asarray(tokens, dtype=np.int64)
        # As unsigned numbers the negative ones are the largest.
        if ids.view(np.uint64).max() >= self._vocabulary_size:
            wrong = ids[(ids < 0) | (ids >= self._vocabulary_size)][0]
            raise ArgumentError(f"tokens has the id {wrong}, and ids go from 0 to {self._vocabulary_size - 1}.")
        self._make_room(self._used + count)
        span = slice(self._used, self._used + count)
        self._tokens[span] = ids
        self._counted[span] = counted
        self._counted[self._used] = False
        self._used += count
        self._lengths.append(count)

    def _make_room(self, needed: int) -> None:
        if needed > len(self._tokens):
            self._resize(max(needed, len(self._tokens) * 5 // 4))

    def _resize(self, size: int) -> None:
        # In place: the allocator moves the pages of a large array instead of copying them.
        self._tokens.resize(size, refcheck=False)
        self._counted.resize(size, refcheck=False)

    def examples(self) -> Examples:
        """What was gathered; the collector has given its arrays away with it, and is of no use any more.

        Raises:
            ArgumentError: nothing was.
        """
        if not self._lengths:
            raise ArgumentError("The data has no documents: every text in it is empty.")
        self._resize(self._used)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths, dtype=np.int64)])
        return Examples(self._tokens, self._counted, starts)
