"""The cache classes without a model: rows and columns against lists of lists, what they are made with, and copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import loquent
from loquent.cache import PLAIN, Coding, StoreKind
from loquent.cache.faces import PADDING, UNKNOWN, Cache, Columns
from loquent.config.caches import QuantizedCacheConfig
from loquent.errors import ArgumentError


class ListedPages:
    """Rows of tokens as lists, which follow a cache's operations by themselves."""

    layers = 3

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows
        self.closed = False

    def rewind(self, lengths: list[int]) -> None:
        self.rows = [row[:length] for row, length in zip(self.rows, lengths, strict=True)]

    def select(self, rows: list[int]) -> None:
        self.rows = [list(self.rows[row]) for row in rows]

    def close(self) -> None:
        self.closed = True

    def copy(self) -> ListedPages:
        return ListedPages([list(row) for row in self.rows])

    def layer(self, index: int, columns: Columns) -> tuple[Any, Any]:
        return index, columns.shape


def filled(*rows: list[int], kind: type[Cache] = loquent.DynamicCache, **settings: Any) -> Cache:
    """A cache of these columns, PADDING among them."""
    cache = kind(**settings)
    cache.columns.append(np.array(rows, np.int64))
    cache.pages = ListedPages([[token for token in row if token != PADDING] for row in rows])
    return cache


@settings(max_examples=40, stateful_step_count=25, deadline=None)
class Operations(RuleBasedStateMachine):
    """Whatever is done to a cache, its columns and the pages behind it stay those of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = loquent.DynamicCache()
        self.model: list[list[int]] = []

    @rule(data=st.data(), new=st.integers(1, 9))
    def append(self, data: st.DataObject, new: int) -> None:
        rows = len(self.model) or data.draw(st.integers(1, 4))
        ids = data.draw(
            st.lists(st.lists(st.integers(-2, 9), min_size=new, max_size=new), min_size=rows, max_size=rows)
        )
        if not self.model:
            self.model = [[] for _ in range(rows)]
            self.cache.pages = ListedPages([[] for _ in range(rows)])
        self.cache.columns.append(np.array(ids))
        for row, own, held in zip(ids, self.model, self.cache.pages.rows, strict=True):
            own += row
            held += [token for token in row if token != PADDING]

    @precondition(lambda self: self.model)
    @rule(length=st.integers(-40, 60))
    def crop(self, length: int) -> None:
        self.cache.crop(length)
        self.model = [row[:length] if length >= 0 or -length < len(row) else [] for row in self.model]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        count = len(self.model)
        rows = data.draw(st.lists(st.integers(-count, count - 1), min_size=1, max_size=5))
        self.cache.reorder_cache(np.array(rows))
        self.model = [list(self.model[row]) for row in rows]

    @precondition(lambda self: 0 < len(self.model) < 4)
    @rule(repeats=st.integers(1, 3))
    def repeat(self, repeats: int) -> None:
        self.cache.batch_repeat_interleave(repeats)
        self.model = [list(row) for row in self.model for _ in range(repeats)]

    @rule()
    def copy(self) -> None:
        before, self.cache = self.cache, copy.deepcopy(self.cache)
        before.columns.crop(0)
        before.leave_pages()

    @precondition(lambda self: self.model)
    @rule(size=st.integers(1, 3))
    def split(self, size: int) -> None:
        parts = self.cache.batch_split(len(self.model), size)
        assert [row for part in parts for row in part.columns.ids.tolist()] == self.model

    @rule()
    def reset(self) -> None:
        self.cache.reset()
        self.model = []

    @invariant()
    def is_the_model(self) -> None:
        columns, length = self.cache.columns, len(self.model[0]) if self.model else 0
        assert self.cache.get_seq_length() == length
        assert self.cache.batch_size == len(self.model)
        assert columns.ids.tolist() == self.model
        tokens = [[token for token in row if token != PADDING] for row in self.model]
        assert [row.tolist() for row in columns.rows()] == tokens
        assert columns.lengths.tolist() == [len(row) for row in tokens]
        assert columns.known == (not any(UNKNOWN in row for row in self.model))
        if self.cache.pages is not None:
            assert self.cache.pages.rows == tokens


TestOperations = Operations.TestCase


def test_crop_takes_both_spellings() -> None:
    for given, left in (({"max_length": 2}, 2), ({"max_length": -1}, 3), ({"tokens_to_remove": -3}, 1)):
        cache = filled([1, 2, 3, 4])
        cache.crop(**given)
        assert cache.columns.ids.tolist() == [[1, 2, 3, 4][:left]]
    cache.crop(tokens_to_remove=0)
    assert cache.get_seq_length() == 1
    for wrong in ({}, {"max_length": 1, "tokens_to_remove": -1}, {"tokens_to_remove": 2}):
        with pytest.raises(ArgumentError, match="tokens_to_remove"):
            cache.crop(**wrong)


def test_rows_that_are_not_there_are_refused() -> None:
    cache = filled([1, 2], [3, 4])
    for rows in ([2], [0, -3], []):
        with pytest.raises(ArgumentError, match="rows of the cache, 0 to 1"):
            cache.reorder_cache(rows)
    with pytest.raises(ArgumentError, match="repeats=0"):
        cache.batch_repeat_interleave(0)
    with pytest.raises(ArgumentError, match="the cache has 2 rows"):
        cache.batch_split(3, 1)
    cache.batch_select_indices(np.array([False, True]))
    assert cache.columns.ids.tolist() == [[3, 4]]
    empty = loquent.DynamicCache()
    empty.reorder_cache([5])
    empty.batch_repeat_interleave(2)
    assert (empty.batch_size, empty.get_seq_length(), len(empty), bool(empty)) == (0, 0, 0, True)


def test_layers_are_read_by_index_and_in_a_loop() -> None:
    cache = filled([1, 2, 3])
    assert len(cache) == 3
    assert cache[-1] == (2, (1, 3))
    assert [index for index, _ in cache] == [0, 1, 2]
    with pytest.raises(IndexError, match="no layer 3"):
        cache[3]
    with pytest.raises(ArgumentError, match="no keys and values yet"):
        loquent.DynamicCache()[0]


def test_copies_are_apart_and_pickles_hold_tokens_alone() -> None:
    cache = filled([1, 2, PADDING], kind=loquent.StaticCache, max_cache_len=9)
    for twin in (copy.deepcopy(cache), copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert twin.columns.ids.tolist() == [[1, 2, PADDING]]
        assert twin.get_max_cache_shape() == 9
        assert twin.pages is not cache.pages
        twin.crop(1)
        twin.columns.append(np.array([[7]]))
    assert cache.columns.ids.tolist() == [[1, 2, PADDING]]
    assert cache.pages.rows == [[1, 2]]
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_what_is_forgotten_is_given_back() -> None:
    cache = filled([1, 2])
    pages = cache.pages
    cache.reset()
    assert pages.closed
    assert (cache.pages, cache.batch_size) == (None, 0)


KINDS: dict[str, tuple[Any, StoreKind]] = {
    "dynamic": (lambda: loquent.DynamicCache(config=object()), PLAIN),
    "dynamic, offloaded": (lambda: loquent.DynamicCache(offloading=True), StoreKind(offloaded=True)),
    "offloaded": (lambda: loquent.OffloadedCache("/tmp"), StoreKind(offloaded=True, folder="/tmp")),
    "static": (lambda: loquent.StaticCache(object(), 2, 9, "cpu", "float32"), PLAIN),
    "static, 5.23": (
        lambda: loquent.StaticCache(object(), max_cache_len=9, offloading=True),
        StoreKind(offloaded=True),
    ),
    "offloaded static": (
        lambda: loquent.OffloadedStaticCache(None, 2, 9, offload_device="cpu"),
        StoreKind(offloaded=True),
    ),
    "sliding": (lambda: loquent.SlidingWindowCache(config=object(), max_batch_size=1, max_cache_len=4), PLAIN),
    "quantized": (lambda: loquent.QuantizedCache(), StoreKind(coding=Coding())),
    "quantized, 5.23": (
        lambda: loquent.QuantizedCache("native", object(), 2, 0, 0, 32, 16),
        StoreKind(coding=Coding(bits=2, group=32, residual=16)),
    ),
    "quantized by a config": (
        lambda: loquent.QuantizedCache(cache_config=QuantizedCacheConfig(nbits=8, q_group_size=16)),
        StoreKind(coding=Coding(bits=8, group=16)),
    ),
    "quantized by a dict": (
        lambda: loquent.QuantizedCache(cache_config={"backend": "hqq", "nbits": 1}),
        StoreKind(coding=Coding(bits=1, library="hqq")),
    ),
    "quanto": (lambda: loquent.QuantoQuantizedCache(nbits=2), StoreKind(coding=Coding(bits=2, library="quanto"))),
    "quanto by a config": (
        lambda: loquent.QuantoQuantizedCache(cache_config=QuantizedCacheConfig(nbits=4, residual_length=7)),
        StoreKind(coding=Coding(residual=7, library="quanto")),
    ),
    "HQQ": (
        lambda: loquent.HQQQuantizedCache(backend="HQQ", axis_key=1, axis_value=1),
        StoreKind(coding=Coding(library="hqq", axis_key=1, axis_value=1)),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_class_asks_for_its_kind_of_store(name: str) -> None:
    make, kind = KINDS[name]
    assert make().kind == kind


def test_what_cannot_work_is_refused_when_a_cache_is_made() -> None:
    with pytest.raises(ArgumentError, match="max_cache_len=0"):
        loquent.StaticCache(max_cache_len=0)
    with pytest.raises(ArgumentError, match="nbits=5"):
        loquent.QuantizedCache(nbits=5)
    with pytest.raises(ArgumentError, match="cache_config say the same"):
        loquent.QuantizedCache(nbits=2, cache_config={})
    for make in (
        lambda: loquent.HQQQuantizedCache("quanto"),
        lambda: loquent.HQQQuantizedCache("native"),
        lambda: loquent.QuantoQuantizedCache(cache_config={"backend": "HQQ"}),
    ):
        with pytest.raises(ArgumentError, match="are several for a"):
            make()


def test_lengths_and_limits() -> None:
    static = loquent.StaticCache(max_batch_size=2, max_cache_len=9)
    assert (static.get_max_cache_shape(), static.get_max_length()) == (9, 9)
    assert loquent.DynamicCache().get_max_cache_shape() == -1
    static.check_room(2, 9)
    with pytest.raises(ArgumentError, match="max_cache_len=9, but 10 columns"):
        static.check_room(2, 10)
    with pytest.raises(ArgumentError, match="max_batch_size=2, but the batch has 3"):
        static.check_room(3, 1)
    loquent.SlidingWindowCache(max_cache_len=4).check_room(7, 1000)


def test_an_encoder_decoder_cache_does_everything_to_both() -> None:
    both = loquent.EncoderDecoderCache(filled([1, 2, 3], [4, 5, 6]), filled([7], [8]))
    assert (len(both), both.get_seq_length(), both.get_max_cache_shape(), both.batch_size) == (3, 3, -1, 2)
    assert both.is_updated == {0: True, 1: True, 2: True}
    both.crop(-1)
    both.reorder_cache([1, 0])
    both.batch_repeat_interleave(2)
    both.batch_select_indices([0, 2])
    assert both.self_attention_cache.columns.ids.tolist() == [[4, 5], [1, 2]]
    assert both.cross_attention_cache.columns.ids.tolist() == [[8], [7]]
    first, second = both.batch_split(2, 1)
    assert first.self_attention_cache.columns.ids.tolist() == [[4, 5]]
    assert second.cross_attention_cache.columns.ids.tolist() == [[7]]
    both.reset()
    assert (both.get_seq_length(), both.is_updated) == (0, {})
    with pytest.raises(ArgumentError, match="cross_attention_cache is a tuple"):
        loquent.EncoderDecoderCache(loquent.DynamicCache(), ())
    with pytest.raises(ArgumentError, match="two caches"):
        loquent.EncoderDecoderCache(first.self_attention_cache, first.self_attention_cache)


def test_a_decoder_alone_splits_without_an_encoder() -> None:
    alone = loquent.EncoderDecoderCache(filled([1], [2], [3]), loquent.StaticCache(max_cache_len=4))
    parts = alone.batch_split(3, 2)
    assert [part.self_attention_cache.columns.ids.tolist() for part in parts] == [[[1], [2]], [[3]]]
    assert parts[0].cross_attention_cache.get_max_cache_shape() == 4
