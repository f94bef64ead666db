"""Sequences against a model: every sequence reads back its own tokens, whatever others write, and pages are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from loquent.cache import PagePool, PrefixIndex, Sequence

PAGE = 3


class Memory:
    """Pages whose content is the tokens themselves; what nobody wrote is -1."""

    def __init__(self) -> None:
        self.pages: dict[int, list[int]] = {}

    def write(self, sequence: Sequence, tokens: list[int]) -> None:
        """What the engine does in a step."""
        for source, target in sequence.prepare(tokens):
            self.pages[target] = list(self.pages[source])
        table = sequence.pages
        for position, token in enumerate(tokens, len(sequence)):
            self.pages.setdefault(int(table[position // PAGE]), [-1] * PAGE)[position % PAGE] = token
        assert sequence.coming.tolist() == tokens
        assert sequence.text.tolist() == [*sequence.tokens.tolist(), *tokens]
        sequence.extend()

    def read(self, sequence: Sequence) -> list[int]:
        table = sequence.pages
        return [self.pages[int(table[position // PAGE])][position % PAGE] for position in range(len(sequence))]


class Sequences(RuleBasedStateMachine):
    """Opens, writes, forks, rewinds and closes at random; `known` says what each sequence must hold."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.prefixes, self.memory = PagePool(PAGE), PrefixIndex(), Memory()
        self.known: dict[Sequence, list[int]] = {}

    @rule(target=live, room=st.sampled_from([0, 0, 4, 12]), salt=st.sampled_from(["a", "b"]), reuse=st.booleans())
    def open(self, room: int, salt: Hashable, reuse: bool) -> Sequence:
        prefixes = self.prefixes if reuse else None
        sequence = Sequence(self.pool, span=99, room=room, prefixes=prefixes, salt=salt)
        self.known[sequence] = []
        return sequence

    @rule(sequence=live, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=8))
    def write(self, sequence: Sequence, tokens: list[int]) -> None:
        if not sequence.closed:
            self.memory.write(sequence, tokens)
            self.known[sequence] += tokens

    @rule(target=live, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14), salt=st.sampled_from(["a", "b"]))
    def open_on_a_prefix(self, tokens: list[int], salt: Hashable) -> Sequence:
        sequence = Sequence(self.pool, span=99, prefixes=self.prefixes, salt=salt)
        adopted = sequence.adopt_prefix(np.array(tokens, np.int64))
        assert adopted % PAGE == 0
        self.known[sequence] = tokens[:adopted]
        return sequence

    @rule(target=live, sequence=live)
    def fork(self, sequence: Sequence) -> Sequence:
        if sequence.closed:
            return multiple()
        twin = sequence.fork()
        self.known[twin] = list(self.known[sequence])
        return twin

    @rule(sequence=live, length=st.integers(0, 20))
    def rewind(self, sequence: Sequence, length: int) -> None:
        length = min(length, len(sequence))
        sequence.rewind(length)
        del self.known[sequence][length:]

    @rule(sequence=live)
    def close(self, sequence: Sequence) -> None:
        sequence.close()
        self.known[sequence] = []

    @rule(shrink=st.booleans())
    def give_back(self, shrink: bool) -> None:
        self.pool.shrink() if shrink else self.pool.forget_all()
        # What the pool no longer has, nobody may rely on.
        self.memory.pages = {page: self.memory.pages[page] for page in self.memory.pages if page < self.pool.capacity}

    @invariant()
    def everybody_reads_their_own_tokens(self) -> None:
        for sequence, tokens in self.known.items():
            assert sequence.tokens.tolist() == tokens
            assert self.memory.read(sequence) == tokens
            assert len(sequence.pages) == self.pool.pages_for(len(tokens))

    @invariant()
    def pages_are_counted_exactly(self) -> None:
        holders = Counter(int(page) for sequence in self.known for page in sequence.pages)
        assert self.pool.held == len(holders)
        for page, count in holders.items():
            assert self.pool.is_shared(page) == (count > 1)
        assert self.pool.remembered <= len(self.prefixes)

    @invariant()
    def what_the_index_finds_is_there(self) -> None:
        for sequence, tokens in self.known.items():
            if sequence._prefixes is None:
                continue
            for key, page in zip(sequence._keys, sequence._prefixes.longest(sequence._keys)):
                assert key in self.prefixes
                index = sequence._keys.index(key)
                assert self.memory.pages[page] == tokens[index * PAGE : (index + 1) * PAGE]

    def teardown(self) -> None:
        for sequence in self.known:
            sequence.close()
        assert self.pool.held == 0
        assert not self.pool._aside.any()
        self.pool.shrink()
        assert self.pool.capacity == 0
        assert len(self.prefixes) == 0


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def filled(pool: PagePool, tokens: list[int], memory: Memory, prefixes: PrefixIndex | None = None) -> Sequence:
    sequence = Sequence(pool, span=99, prefixes=prefixes)
    memory.write(sequence, tokens)
    return sequence


def test_a_fork_copies_only_the_page_that_it_writes_to() -> None:
    pool, memory = PagePool(PAGE), Memory()
    sequence = filled(pool, [1, 2, 3, 4, 5, 6, 7], memory)
    twin = sequence.fork()
    assert pool.held == 3
    memory.write(twin, [8])
    assert pool.held == 4
    assert twin.pages[:2].tolist() == sequence.pages[:2].tolist()
    memory.write(sequence, [9])  # alone on its page by now: written in place
    assert pool.held == 4
    assert (memory.read(sequence), memory.read(twin)) == ([1, 2, 3, 4, 5, 6, 7, 9], [1, 2, 3, 4, 5, 6, 7, 8])


def test_a_page_that_is_found_by_its_key_is_not_written_over() -> None:
    pool, memory, prefixes = PagePool(PAGE), Memory(), PrefixIndex()
    sequence = filled(pool, [1, 2, 3, 4, 5, 6], memory, prefixes)
    sequence.rewind(4)
    memory.write(sequence, [9, 9])
    other = Sequence(pool, span=99, prefixes=prefixes)
    assert other.adopt_prefix(np.array([1, 2, 3, 4, 5, 6, 7])) == 6
    assert memory.read(other) == [1, 2, 3, 4, 5, 6]
    assert memory.read(sequence) == [1, 2, 3, 4, 9, 9]


def test_a_closed_sequences_pages_are_found_until_they_are_needed() -> None:
    pool, memory, prefixes = PagePool(PAGE, limit=3), Memory(), PrefixIndex()
    filled(pool, [1, 2, 3, 4, 5, 6], memory, prefixes).close()
    assert (pool.held, pool.remembered) == (0, 2)
    again = Sequence(pool, span=99, prefixes=prefixes)
    assert again.adopt_prefix(np.array([1, 2, 3, 4, 5, 9])) == 3
    again.close()
    filled(pool, [7] * 9, memory, prefixes)
    assert pool.remembered == 0
    late = Sequence(pool, span=99, prefixes=prefixes)
    assert late.adopt_prefix(np.array([1, 2, 3, 4])) == 0


def test_a_prefix_under_another_salt_is_not_found() -> None:
    pool, memory, prefixes = PagePool(PAGE), Memory(), PrefixIndex()
    filled(pool, [1, 2, 3], memory, prefixes)
    assert Sequence(pool, span=99, prefixes=prefixes, salt="longer").adopt_prefix(np.array([1, 2, 3, 4])) == 0


def test_forks_are_listed_where_their_owner_finds_them() -> None:
    pool, memory = PagePool(PAGE), Memory()
    sequence = filled(pool, [1], memory)
    sequence.family.append(sequence)
    twin = sequence.fork()
    grandchild = twin.fork()
    assert sequence.family == [sequence, twin, grandchild]
    twin.close()
    twin.close()
    assert sequence.family == [sequence, grandchild]
    assert pool.held == 1


def test_sequences_refuse_what_would_lose_pages() -> None:
    sequence = filled(PagePool(PAGE), [1, 2, 3, 4], Memory())
    with pytest.raises(ValueError, match="4 tokens cannot be rewound to 5"):
        sequence.rewind(5)
    sequence.close()
    with pytest.raises(ValueError, match="closed"):
        sequence.fork()
