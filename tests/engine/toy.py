"""A toy language model in numpy behind the backend protocol, whose logits depend on everything the pages hold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from loquent.decoding.choice import Choice, Chosen
from loquent.engine import Forward, Segment


class ToyStore:
    """Pages of (token, position) features."""

    bytes_per_page = 1

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.content = np.full((0, page_size, 2), np.nan)

    @property
    def pages(self) -> int:
        return len(self.content)

    def resize(self, pages: int) -> None:
        fresh = np.full((pages, self.page_size, 2), np.nan)
        kept = min(pages, self.pages)
        fresh[:kept] = self.content[:kept]
        self.content = fresh

    def clear(self, pages: Sequence[int]) -> None:
        self.content[list(pages)] = 0

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        assert not set(sources) & set(targets)
        self.content[list(targets)] = self.content[list(sources)]


class ToyBackend:
    """Row t's logits are a fixed random function of all (token, position) pairs up to t, read back from the store.

    Layer 0 is an embedding of each pair, layer 1 sums the last three, layer 2 all of them, newer ones with more weight;
    the final norm is tanh.
    """

    tied = False
    selects = False
    free_rows = 8

    def __init__(self, vocabulary: int = 11, seed: int = 0, max_positions: int | None = None) -> None:
        self.vocabulary, self.max_positions, self.incremental, self.layers = vocabulary, max_positions, True, 2
        random = np.random.default_rng(seed)
        self.table = random.standard_normal((vocabulary, 64, 8))
        self.matrix = random.standard_normal((8, vocabulary)) * 1.5
        self.tokens_read = 0

    @property
    def multiplications(self) -> int:
        return 1 + self.layers

    def describe(self) -> str:
        return "a toy" if self.layers == 2 else "the first block of a toy"

    def weights_changed(self) -> bool:
        return False

    def open_store(self, page_size: int) -> ToyStore:
        return ToyStore(page_size)

    def prefix_key(self, span: int) -> Hashable:
        return None

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """The row behind `tokens`: what the model computes, without any store."""
        pairs = np.stack([np.asarray(tokens, float), np.arange(len(tokens), dtype=float)], axis=1)
        return self._row(pairs)

    def _row(self, pairs: np.ndarray) -> np.ndarray:
        row: np.ndarray = self.head(self._state(pairs, self.layers)[None])[0]
        return row

    def _state(self, pairs: np.ndarray, layer: int) -> np.ndarray:
        """The last pair's hidden state."""
        assert not np.isnan(pairs).any(), "a slot was read before it was written"
        pairs = pairs[-(1, 3, len(pairs))[layer] :]
        tokens, positions = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
        weights = 0.7 ** np.arange(len(pairs))[::-1]
        summed = (self.table[tokens, positions % 64] * weights[:, None]).sum(axis=0)
        return np.tanh(summed) if layer == self.layers else summed

    def head(self, states: np.ndarray) -> np.ndarray:
        # One by one: a product's bits may depend on how many rows it has.
        rows = [(state @ self.matrix).astype(np.float32) for state in states]
        return np.stack(rows) if rows else np.zeros((0, self.vocabulary), np.float32)

    def truncated(self, depth: int) -> ToyBackend:
        if not 0 < depth < self.layers:
            raise ValueError(f"depth={depth} must be 1.")
        shallow = copy.copy(self)
        shallow.layers, shallow.tokens_read = depth, 0
        return shallow

    def run(self, store: ToyStore, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        for segment in segments:
            positions = np.arange(segment.start, segment.start + len(segment.tokens))
            pages, slots = segment.pages[positions // store.page_size], positions % store.page_size
            store.content[pages, slots] = np.stack([segment.tokens, positions], axis=1)
        rows: list[np.ndarray] = []
        kept: dict[int, list[np.ndarray]] = {layer: [] for layer in hidden_layers}
        for segment in segments:
            stop = segment.start + len(segment.tokens)
            context = store.content[segment.pages].reshape(-1, 2)
            ends = range(stop - segment.rows + 1, stop + 1)
            rows += [self._row(context[:end]) for end in ends[segment.rows - segment.logit_rows :]]
            for layer, states in kept.items():
                states += [self._state(context[:end], layer) for end in ends]
            self.tokens_read += len(segment.tokens)
        hidden = {layer: np.array(states).reshape(-1, len(self.matrix)) for layer, states in kept.items()}
        return Forward(np.stack(rows) if rows else np.zeros((0, self.vocabulary), np.float32), hidden)


class SelectingToy(ToyBackend):
    """The toy as a backend that answers choices by itself, by `choose(row, choice)`; rows hold only until its next run.

    `answered` counts the choices.
    """

    selects = True

    def __init__(self, choose: Callable[[np.ndarray, Choice], Chosen], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choose, self.answered = choose, 0
        self.memory = np.zeros((0, self.vocabulary), np.float32)

    def truncated(self, depth: int) -> SelectingToy:
        shallow = super().truncated(depth)
        assert isinstance(shallow, SelectingToy)
        shallow.memory, shallow.answered = np.zeros((0, self.vocabulary), np.float32), 0
        return shallow

    def run(self, store: ToyStore, segments: Sequence[Segment], hidden_layers: Sequence[int] = ()) -> Forward:
        self.memory.fill(np.nan)
        forward = super().run(store, segments, hidden_layers)
        self.memory = forward.logits
        stops = np.cumsum([segment.logit_rows for segment in segments])
        assert all(segment.logit_rows == 1 for segment in segments if segment.choice)
        chosen = [
            self.choose(self.memory[stop - 1], segment.choice) if segment.choice else None
            for segment, stop in zip(segments, stops)
        ]
        self.answered += sum(answer is not None for answer in chosen)
        return Forward(self.memory, forward.hidden, chosen)
