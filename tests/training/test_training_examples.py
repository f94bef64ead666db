"""Documents held flat: gathered, joined, split, and known again by their fingerprint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.errors import ArgumentError
from loquent.training.data import Collector, Examples

documents = st.lists(
    st.lists(st.tuples(st.integers(0, 65_535), st.booleans()), min_size=1, max_size=20), min_size=1, max_size=20
)
Document = list[tuple[int, bool]]


def gathered(given: list[Document], vocabulary_size: int = 65_536) -> Examples:
    collector = Collector(vocabulary_size)
    for document in given:
        collector.add([token for token, _ in document], [counts for _, counts in document])
    return collector.examples()


def listed(examples: Examples) -> list[Document]:
    parts = [examples.document(index) for index in range(len(examples))]
    return [list(zip(tokens.tolist(), counted.tolist())) for tokens, counted in parts]


def expected(given: list[Document]) -> list[Document]:
    """A document's first token is predicted by nothing."""
    return [[(document[0][0], False), *document[1:]] for document in given]


@given(documents)
def test_documents_come_back_as_they_were_added(given: list[Document]) -> None:
    examples = gathered(given)
    assert listed(examples) == expected(given)
    assert examples.counted_tokens == sum(counts for document in expected(given) for _, counts in document)


@given(st.lists(documents, min_size=1, max_size=4), st.data())
def test_joining_and_choosing(parts: list[list[Document]], data: st.DataObject) -> None:
    joined = Examples.joined([gathered(part) for part in parts])
    whole = [document for part in parts for document in expected(part)]
    assert listed(joined) == whole
    chosen = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5))
    assert listed(joined.chosen(chosen)) == [whole[index] for index in chosen]


def test_many_documents_grow_the_arrays() -> None:
    collector = Collector(70_000)
    for number in range(500):
        collector.add(np.full(1000, number + 65_000))
    examples = collector.examples()
    assert (len(examples), examples.tokens.dtype, len(examples.tokens)) == (500, np.uint32, 500_000)
    assert [examples.document(index)[0].tolist() for index in (0, 499)] == [[65_000] * 1000, [65_499] * 1000]
    assert examples.counted_tokens == 500 * 999


def test_ids_take_two_bytes_where_the_vocabulary_allows_it() -> None:
    assert gathered([[(65_535, True)]], 65_536).tokens.dtype == np.uint16
    assert gathered([[(65_535, True)]], 65_537).tokens.dtype == np.uint32


def test_documents_without_tokens_are_left_out() -> None:
    collector = Collector(10)
    for document in ([], [1, 2], []):
        collector.add(document)
    assert listed(collector.examples()) == [[(1, False), (2, True)]]
    with pytest.raises(ArgumentError, match="The data has no documents: every text in it is empty"):
        Collector(10).examples()


@pytest.mark.parametrize("wrong", [10, -1, 70_000, 1 << 40])
def test_ids_beyond_the_vocabulary_are_refused(wrong: int) -> None:
    with pytest.raises(ArgumentError, match=f"tokens has the id {wrong}, and ids go from 0 to 9"):
        Collector(10).add([1, wrong, 2])


def numbered(count: int, of: int = 0) -> Examples:
    return gathered([[(of, True), (number, True)] for number in range(count)])


@given(st.integers(2, 200), st.floats(0.001, 0.6), st.integers(0, 9))
def test_a_split_holds_out_a_share_whatever_the_documents_say(count: int, share: float, seed: int) -> None:
    if max(1, round(share * count)) == count:
        return
    training, held_out = numbered(count).split(share, seed)
    assert len(held_out) == max(1, round(share * count))
    chosen = held_out.tokens[1::2].tolist()
    assert sorted([*training.tokens[1::2].tolist(), *chosen]) == list(range(count))
    assert chosen == sorted(chosen)
    assert numbered(count, of=5).split(share, seed)[1].tokens[1::2].tolist() == chosen


def test_splits_of_other_seeds_differ() -> None:
    assert len({tuple(numbered(100).split(0.1, seed)[1].tokens.tolist()) for seed in range(5)}) == 5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_must_be_one(share: float) -> None:
    with pytest.raises(ArgumentError, match="of the documents to hold out must be between 0 and 1"):
        numbered(4).split(share)


def test_a_document_alone_cannot_be_split() -> None:
    with pytest.raises(ArgumentError, match=r"share=0.1 of 1 documents leaves none to train on. Give a file for eval"):
        numbered(1).split(0.1)


def test_the_fingerprint_is_of_everything() -> None:
    plain = [[(1, True), (2, True)], [(3, True), (4, True)]]
    others = [
        [[(1, True), (2, True)], [(3, True), (5, True)]],
        [[(1, True), (2, False)], [(3, True), (4, True)]],
        [[(1, True), (2, True), (3, False), (4, True)]],
        [[(1, True), (2, True)]],
    ]
    assert len({gathered(given).fingerprint() for given in [plain, *others]}) == 5
    assert gathered(plain, 1 << 20).fingerprint() != gathered(plain).fingerprint() == gathered(plain).fingerprint()


@pytest.mark.parametrize(
    ("counted", "starts", "message"),
    [
        ([False, True], [0, 3], "Examples of 3 tokens, 2 marks and 2 starts"),
        ([False, True, True], [0, 2], "starts must ascend from 0"),
        ([False, True, True], [0, 2, 2, 3], "starts must ascend from 0"),
        ([False, True, True], [], "starts must ascend from 0"),
        ([False, True, True], [0, 1, 3], "counted is True for a document's first token"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(counted: list[bool], starts: list[int], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Examples(np.arange(3, dtype=np.uint16), np.array(counted), np.array(starts, np.int64))


def test_nothing_cannot_be_joined() -> None:
    with pytest.raises(ArgumentError, match="there are no examples to join"):
        Examples.joined([])
