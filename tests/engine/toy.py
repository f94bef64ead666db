"""A toy language model in numpy behind the backend protocol, whose logits depend on everything the pages hold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from loquent.cache import PLAIN, Coding, PageGroup, StoreKind
from loquent.decoding.choice import Choice, Chosen
from loquent.engine import Forward, Segment


class ToyStore:
    """Pages of (token, position) features. A coded page's tokens are negative: minus one, minus the token."""

    place, format = "memory", "toy"

    def __init__(self, page_size: int, groups: Sequence[PageGroup]) -> None:
        self.page_size, self.groups = page_size, groups
        self.content = [np.full((0, page_size, 2), np.nan) for _ in groups]

    def pages(self, group: int) -> int:
        return len(self.content[group])

    def resize(self, group: int, pages: int) -> None:
        fresh = np.full((pages, self.page_size, 2), np.nan)
        kept = min(pages, self.pages(group))
        fresh[:kept] = self.content[group][:kept]
        self.content[group] = fresh

    def clear(self, group: int, pages: Sequence[int]) -> None:
        self.content[group][list(pages)] = 0

    def copy(self, group: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        assert self.groups[group].residual is None, "pages that never change need no copy"
        assert not set(sources) & set(targets)
        self.content[group][list(targets)] = self.content[group][list(sources)]

    def write(self, segment: Segment) -> None:
        positions = np.arange(segment.start, segment.start + len(segment.tokens))
        pages = segment.tables[0][positions // self.page_size]
        assert (pages >= 0).all()
        self.content[0][pages, positions % self.page_size] = np.stack([segment.tokens, positions], axis=1)
        for group in range(1, len(self.groups)):
            assert len(segment.tables[group]) == self.groups[group].stop(int(positions[-1]) + 1, self.page_size)
            for index in range(segment.coded[group], len(segment.tables[group])):
                self.content[group][segment.tables[group][index]] = self.content[0][segment.tables[0][index]]
                self.content[group][segment.tables[group][index], :, 0] *= -1
                self.content[group][segment.tables[group][index], :, 0] -= 1

    def read(self, segment: Segment, end: int, first: int) -> np.ndarray:
        """What the query at `end - 1` sees, from position `first` on, (positions, 2)."""
        coded = 0 if len(self.groups) == 1 else self.groups[1].stop(end, self.page_size)
        pages = range(first // self.page_size, -(-end // self.page_size))
        forms = [int(index < coded) for index in pages]
        numbers = [segment.tables[form][index] for form, index in zip(forms, pages)]
        assert min(numbers, default=0) >= 0, "a page was read that had been given back"
        found = np.concatenate([self.content[form][number] for form, number in zip(forms, numbers)])
        return found[first % self.page_size :][: end - first]


class ToyBackend:
    """Row t's logits are a fixed random function of all (token, position) pairs up to t, read back from the store.

    Layer 0 is an embedding of each pair, layer 1 sums the last three, layer 2 all of them, newer ones with more weight;
    the final norm is tanh. With a `window`, layer 2 sums so many of the last. What is seen coded counts less.
    """

    tied = False
    selects = False
    free_rows, host_work, row_work = 8, 0, 0

    def __init__(
        self, vocabulary: int = 11, seed: int = 0, max_positions: int | None = None, window: int | None = None
    ) -> None:
        self.window = window
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

    def open_store(self, page_size: int, kind: StoreKind = PLAIN) -> ToyStore:
        if kind.coding is None:
            return ToyStore(page_size, [PageGroup(1, self.window)])
        # Windows within the residual too: they see nothing coded then, and the pages are there all the same.
        groups = [PageGroup(4, kind.coding.residual + 1), PageGroup(1, self.window, kind.coding.residual)]
        return ToyStore(kind.coding.group, groups)

    def prefix_key(self, span: int) -> Hashable:
        return None

    def logits(self, tokens: Sequence[int], coding: Coding | None = None) -> np.ndarray:
        """The row behind `tokens`: what the model computes, without any store."""
        pairs = np.stack([np.asarray(tokens, float), np.arange(len(tokens), dtype=float)], axis=1)
        if coding is not None:
            coded = max(0, len(tokens) - coding.residual) // coding.group * coding.group
            pairs[:coded, 0] = -1 - pairs[:coded, 0]
        return self._row(pairs[-self.window :] if self.window else pairs)

    def _row(self, pairs: np.ndarray) -> np.ndarray:
        row: np.ndarray = self.head(self._state(pairs, self.layers)[None])[0]
        return row

    def _state(self, pairs: np.ndarray, layer: int) -> np.ndarray:
        """The last pair's hidden state."""
        assert not np.isnan(pairs).any(), "a slot was read before it was written"
        pairs = pairs[-(1, 3, len(pairs))[layer] :]
        tokens, positions = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
        weights = 0.7 ** np.arange(len(pairs))[::-1]
        weights, tokens = np.where(tokens < 0, 0.8 * weights, weights), np.where(tokens < 0, -1 - tokens, tokens)
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
            store.write(segment)
        rows: list[np.ndarray] = []
        kept: dict[int, list[np.ndarray]] = {layer: [] for layer in hidden_layers}
        for segment in segments:
            stop = segment.start + len(segment.tokens)
            ends = range(stop - segment.rows + 1, stop + 1)
            seen = [store.read(segment, end, max(0, end - self.window) if self.window else 0) for end in ends]
            rows += [self._row(pairs) for pairs in seen[segment.rows - segment.logit_rows :]]
            for layer, states in kept.items():
                states += [self._state(pairs, layer) for pairs in seen]
            self.tokens_read += len(segment.tokens)
        hidden = {layer: np.array(states).reshape(-1, len(self.matrix)) for layer, states in kept.items()}
        return Forward(np.stack(rows) if rows else np.zeros((0, self.vocabulary), np.float32), hidden)


class SelectingToy(ToyBackend):
    """The toy as a backend that answers choices by itself, by `choose(row, choice)`; rows hold only until its next run.

    `answered` counts the choices of its runs, and `verified` those from rows that a run gave.
    """

    selects = True

    def __init__(self, choose: Callable[[np.ndarray, Choice], Chosen], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choose, self.answered, self.verified = choose, 0, 0
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
        return Forward(self.memory, forward.hidden, chosen, self.choose_row)

    def choose_row(self, row: int, choice: Choice) -> Chosen:
        self.verified += 1
        return self.choose(self.memory[row].copy(), choice)
