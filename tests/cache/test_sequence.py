"""Sequences against a model: every sequence reads back its own tokens, whatever others write, and pages are counted."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from loquent.cache import Budget, PageGroup, PageSpace, Sequence
from loquent.cache.table import KEPT_BEHIND, NOWHERE
from loquent.errors import CapacityError

PAGE = 3
PLAIN = (PageGroup(1),)
LAYOUTS = [
    PLAIN,
    (PageGroup(2, window=4),),
    (PageGroup(1), PageGroup(2, window=2)),
    (PageGroup(4, window=5), PageGroup(1, residual=5)),
    (PageGroup(4, window=1), PageGroup(3, window=2), PageGroup(1, window=7, residual=2), PageGroup(1, residual=1)),
]


class Memory:
    """Pages whose content is the tokens themselves; what nobody wrote is -1."""

    def __init__(self, space: PageSpace) -> None:
        self.space = space
        self.pages: list[dict[int, list[int]]] = [{} for _ in space.groups]

    def write(self, sequence: Sequence, tokens: list[int], again: int = 0) -> None:
        """What the engine does in a step."""
        start, length = sequence.stored, len(sequence)
        for group, source, target in sequence.prepare(tokens, again):
            self.pages[group][target] = list(self.pages[group][source])
        expected = [*sequence.tokens[start : start + again].tolist(), *tokens]
        assert sequence.coming.tolist() == expected
        assert sequence.text.tolist() == [*sequence.tokens.tolist()[:start], *expected]
        for group, table, ready in zip(self.space.groups, sequence.tables, sequence.coded):
            number = self.space.groups.index(group)
            if group.residual is None:
                for position, token in enumerate(expected, start):
                    page = self.pages[number].setdefault(int(table[position // PAGE]), [-1] * PAGE)
                    page[position % PAGE] = token
            else:
                for index in range(ready, len(table)):
                    content = sequence.text[index * PAGE : (index + 1) * PAGE].tolist()
                    assert len(content) == PAGE
                    self.pages[number][int(table[index])] = content
        sequence.extend()
        assert len(sequence) == max(length, start + len(expected))

    def check(self, sequence: Sequence) -> None:
        """What the queries behind the stored tokens see is there."""
        tokens, stored = sequence.tokens.tolist(), sequence.stored
        for number, (group, table) in enumerate(zip(self.space.groups, sequence.tables)):
            stop = min(group.stop(stored, PAGE), len(table))
            assert stop == group.stop(stored, PAGE)
            for index in range(group.first(stored, PAGE), stop):
                held = self.pages[number][int(table[index])]
                known = tokens[index * PAGE : min(stored, (index + 1) * PAGE)]
                assert held[: len(known)] == known

    def read(self, sequence: Sequence) -> list[int]:
        """All of a sequence that the first group holds whole."""
        [table, *_] = sequence.tables
        return [self.pages[0][int(table[position // PAGE])][position % PAGE] for position in range(len(sequence))]


class Sequences(RuleBasedStateMachine):
    """Opens, writes, forks, rewinds, evicts and closes at random; `known` says what each sequence must hold."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[Sequence, list[int]] = {}

    @initialize(layout=st.sampled_from(LAYOUTS), limit=st.sampled_from([None, 20, 60]), reuse=st.booleans())
    def start(self, layout: tuple[PageGroup, ...], limit: int | None, reuse: bool) -> None:
        self.space = PageSpace(layout, PAGE, Budget(limit), reuse)
        self.memory = Memory(self.space)

    @rule(target=live, room=st.sampled_from([0, 0, 4, 12]), salt=st.sampled_from(["a", "b"]))
    def open(self, room: int, salt: Hashable) -> Sequence:
        sequence = Sequence(self.space, span=99, room=room, salt=salt)
        self.known[sequence] = []
        return sequence

    @rule(sequence=live, tokens=st.lists(st.integers(0, 1), max_size=8), part=st.integers(1, 99))
    def write(self, sequence: Sequence, tokens: list[int], part: int) -> None:
        """The next tokens, or what is missing first."""
        again = min(part, sequence.missing)
        tokens = tokens if again == sequence.missing else []
        if sequence.closed or not (again or tokens):
            return
        before = [table.tolist() for table in sequence.tables]
        try:
            self.memory.write(sequence, tokens, again)
        except CapacityError:
            after = [table.tolist() for table in sequence.tables]
            changed = [(a, b) for old, new in zip(before, after) for a, b in zip(old, new) if a != b]
            assert all(new == NOWHERE for _, new in changed)  # what nobody sees any more
            assert [len(table) for table in after] == [len(table) for table in before]
        else:
            self.known[sequence] += tokens

    @rule(target=live, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14), salt=st.sampled_from(["a", "b"]))
    def open_on_a_prefix(self, tokens: list[int], salt: Hashable) -> Sequence:
        sequence = Sequence(self.space, span=99, salt=salt)
        adopted = sequence.adopt_prefix(np.array(tokens, np.int64))
        assert adopted % PAGE == 0
        assert adopted == sequence.stored == len(sequence)
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
    def evict(self, sequence: Sequence) -> None:
        sequence.evict()
        assert sequence.stored == 0

    @rule(sequence=live, tokens=st.lists(st.integers(0, 1), max_size=5))
    def recover(self, sequence: Sequence, tokens: list[int]) -> None:
        """What an evicted sequence finds again, and with it what follows."""
        if not sequence.closed:
            gained = sequence.adopt_prefix(np.array(tokens, np.int64))
            assert gained <= len(tokens)
            self.known[sequence] += tokens[:gained]

    @rule(sequence=live)
    def close(self, sequence: Sequence) -> None:
        sequence.close()
        self.known[sequence] = []

    @rule(how=st.sampled_from(["shrink", "forget_all", "reclaim"]))
    def give_back(self, how: str) -> None:
        getattr(self.space, how)()
        for pages, pool in zip(self.memory.pages, self.space.pools):
            for page in [page for page in pages if page >= pool.capacity]:
                del pages[page]  # what the pool no longer has, nobody may rely on

    @invariant()
    def everybody_reads_their_own_tokens(self) -> None:
        for sequence, tokens in self.known.items():
            assert sequence.tokens.tolist() == tokens
            assert sequence.stored + sequence.missing == len(tokens)
            self.memory.check(sequence)

    @invariant()
    def pages_are_counted_exactly(self) -> None:
        for number, pool in enumerate(self.space.pools if self.known else []):
            holders = Counter(int(page) for sequence in self.known for page in sequence.tables[number])
            holders.pop(NOWHERE, None)
            assert pool.held == len(holders)
            for page, count in holders.items():
                assert pool.is_shared(page) == (count > 1)
        if self.known:
            taken = sum(pool.capacity * pool.bytes_per_page for pool in self.space.pools)
            assert taken == self.space.budget.taken <= (self.space.budget.limit or taken)

    @invariant()
    def what_the_index_finds_is_there(self) -> None:
        for sequence, tokens in self.known.items():
            for number, index in enumerate(self.space.prefixes or []):
                keys = [key for key in sequence._keys if key in index]
                for key, page in zip(keys, index.pages(keys)):
                    at = sequence._keys.index(key)
                    assert self.memory.pages[number][page] == tokens[at * PAGE : (at + 1) * PAGE]

    def teardown(self) -> None:
        for sequence in self.known:
            sequence.close()
        if self.known:
            assert self.space.held == 0
            assert not self.space.aside
            self.space.shrink()
            assert self.space.capacity == self.space.budget.taken == 0
            assert not any(len(index) for index in self.space.prefixes or [])


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def filled(memory: Memory, tokens: list[int], **options: Hashable) -> Sequence:
    sequence = Sequence(memory.space, span=99, **options)
    memory.write(sequence, tokens)
    return sequence


def plain(limit: int | None = None) -> Memory:
    return Memory(PageSpace(PLAIN, PAGE, Budget(limit)))


def test_a_fork_copies_only_the_page_that_it_writes_to() -> None:
    memory = plain()
    space = memory.space
    sequence = filled(memory, [1, 2, 3, 4, 5, 6, 7])
    twin = sequence.fork()
    assert space.held == 3
    memory.write(twin, [8])
    assert space.held == 4
    assert twin.tables[0][:2].tolist() == sequence.tables[0][:2].tolist()
    memory.write(sequence, [9])  # alone on its page by now: written in place
    assert space.held == 4
    assert (memory.read(sequence), memory.read(twin)) == ([1, 2, 3, 4, 5, 6, 7, 9], [1, 2, 3, 4, 5, 6, 7, 8])


def test_a_page_that_is_found_by_its_key_is_not_written_over() -> None:
    memory = plain()
    sequence = filled(memory, [1, 2, 3, 4, 5, 6])
    sequence.rewind(4)
    memory.write(sequence, [9, 9])
    other = Sequence(memory.space, span=99)
    assert other.adopt_prefix(np.array([1, 2, 3, 4, 5, 6, 7])) == 6
    assert memory.read(other) == [1, 2, 3, 4, 5, 6]
    assert memory.read(sequence) == [1, 2, 3, 4, 9, 9]


def test_a_closed_sequences_pages_are_found_until_they_are_needed() -> None:
    memory = plain(limit=3)
    space = memory.space
    filled(memory, [1, 2, 3, 4, 5, 6]).close()
    assert (space.held, space.remembered) == (0, 2)
    again = Sequence(space, span=99)
    assert again.adopt_prefix(np.array([1, 2, 3, 4, 5, 9])) == 3
    again.close()
    filled(memory, [7] * 9)
    assert space.remembered == 0
    late = Sequence(space, span=99)
    assert late.adopt_prefix(np.array([1, 2, 3, 4])) == 0


def test_a_prefix_under_another_salt_is_not_found() -> None:
    memory = plain()
    filled(memory, [1, 2, 3])
    assert Sequence(memory.space, span=99, salt="longer").adopt_prefix(np.array([1, 2, 3, 4])) == 0


def test_pages_behind_a_window_are_given_back() -> None:
    space = PageSpace((PageGroup(1), PageGroup(1, window=4)), PAGE)
    memory = Memory(space)
    sequence = filled(memory, [1] * 300)
    memory.write(sequence, [2])
    whole, windowed = space.pools
    assert whole.held == 101
    assert windowed.held <= -(-(4 + KEPT_BEHIND) // PAGE) + 2
    memory.check(sequence)


def test_exact_pages_are_given_back_once_they_are_coded() -> None:
    space = PageSpace((PageGroup(8, window=5), PageGroup(1, residual=5)), PAGE)
    memory = Memory(space)
    sequence = filled(memory, [1] * 300)
    memory.write(sequence, [2])
    exact, coded = space.pools
    assert coded.held == (301 - 5) // PAGE
    assert exact.held <= -(-(5 + KEPT_BEHIND) // PAGE) + 2
    memory.check(sequence)


def test_what_a_rewound_sequence_lacks_is_read_again() -> None:
    space = PageSpace((PageGroup(1, window=4),), PAGE, reuse=False)
    memory = Memory(space)
    sequence = filled(memory, [5] * 300)
    memory.write(sequence, [6])
    sequence.rewind(100)
    assert (len(sequence), sequence.stored, space.held) == (100, 0, 0)
    memory.write(sequence, [7, 7], again=100)
    assert sequence.stored == len(sequence) == 102
    memory.check(sequence)


def test_a_short_supply_changes_nothing() -> None:
    space = PageSpace((PageGroup(1), PageGroup(3, window=4)), PAGE, Budget(17))
    memory = Memory(space)
    sequence = filled(memory, [1] * 11)  # 4 pages of each
    twin = sequence.fork()
    with pytest.raises(CapacityError):
        memory.write(twin, [2])  # a copy of the first group's last page, and no room for the second's
    assert [table.tolist() for table in twin.tables] == [table.tolist() for table in sequence.tables]
    assert space.held == 8
    sequence.close()
    memory.write(twin, [2])
    memory.check(twin)


def test_a_space_that_is_gone_takes_nothing() -> None:
    budget = Budget(100)
    space = PageSpace((PageGroup(1), PageGroup(2, window=4)), PAGE, budget)
    sequence = filled(Memory(space), [1] * 11)
    del space
    assert budget.taken == 12
    del sequence
    gc.collect()
    assert budget.taken == 0


def test_forks_are_listed_where_their_owner_finds_them() -> None:
    memory = plain()
    sequence = filled(memory, [1])
    sequence.family.append(sequence)
    twin = sequence.fork()
    grandchild = twin.fork()
    assert sequence.family == [sequence, twin, grandchild]
    twin.close()
    twin.close()
    assert sequence.family == [sequence, grandchild]
    assert memory.space.held == 1


def test_sequences_refuse_what_would_lose_pages() -> None:
    sequence = filled(plain(), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="4 tokens cannot be rewound to 5"):
        sequence.rewind(5)
    sequence.close()
    with pytest.raises(ValueError, match="closed"):
        sequence.fork()
