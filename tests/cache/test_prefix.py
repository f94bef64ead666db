"""Prefix keys and their index: a key stands for everything up to its page's end, and finds the first such page."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loquent.cache import PrefixIndex, page_keys

texts = st.lists(st.integers(0, 2), max_size=12)


def keys(tokens: list[int], salt: object = None) -> list[bytes]:
    return [bytes(key) for key in page_keys(np.array(tokens, np.int64), 3, salt)]


@given(texts, texts)
def test_keys_are_equal_exactly_where_everything_before_is(left: list[int], right: list[int]) -> None:
    for page, (one, other) in enumerate(zip(keys(left), keys(right)), 1):
        assert (one == other) == (left[: 3 * page] == right[: 3 * page])


@given(texts, st.integers(0, 4))
def test_keys_can_be_continued(tokens: list[int], known: int) -> None:
    array = np.array(tokens, np.int64)
    whole = page_keys(array, 3, "salt")
    assert len(whole) == len(tokens) // 3
    keys = whole[:known]
    assert page_keys(array, 3, "salt", keys) == whole
    assert keys == whole  # continued in place: a long text's keys are not copied page after page


def test_keys_differ_by_salt() -> None:
    assert not set(keys([1, 2, 3, 4, 5, 6], "one")) & set(keys([1, 2, 3, 4, 5, 6], "two"))


def test_swapping_pages_changes_every_key() -> None:
    assert not set(keys([1, 1, 1, 2, 2, 2])) & set(keys([2, 2, 2, 1, 1, 1]))


def test_the_longest_known_beginning_is_found() -> None:
    index = PrefixIndex()
    first, second, third = page_keys(np.arange(9), 3, None)
    index.add(first, 7)
    index.add(third, 9)
    assert index.longest([first, second, third]) == [7]
    index.add(second, 8)
    assert index.longest([first, second, third]) == [7, 8, 9]
    index.forget(7)
    assert index.longest([first, second, third]) == []
    assert not index.knows(7)
    assert len(index) == 2


def test_the_first_page_with_a_content_stays() -> None:
    index = PrefixIndex()
    one, other = page_keys(np.arange(6), 3, None)
    index.add(one, 1)
    index.add(one, 2)  # equal content elsewhere
    index.add(other, 1)  # a page holds one content
    assert index.longest([one]) == [1]
    assert not index.knows(2)
    assert other not in index
    index.forget(2)
    assert one in index
