"""Caches passed to `forward`: whatever is done to them, what is read next is what reading everything again gives."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ALL, VOCABULARY, distinct_ids, pair, tiny

from loquent import (
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    OffloadedCache,
    QuantizedCache,
    SlidingWindowCache,
    StaticCache,
)
from loquent.cache.faces import PADDING, UNKNOWN
from loquent.errors import ArgumentError

MODELS = {name: tiny(name) for name in ALL}
CLOSE = {"atol": 5e-5, "rtol": 1e-3}


def read(model: Any, cache: Any, ids: torch.Tensor, **given: Any) -> torch.Tensor:
    """The logits of new columns behind a cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(ids, past_key_values=cache, **given).logits
    return logits


@pytest.mark.parametrize("name", ALL)
def test_a_loop_does_what_it_does_with_the_cache_of_transformers(name: str) -> None:
    ours, theirs = pair(name)
    mine, other = DynamicCache(), transformers.DynamicCache()
    # No token comes twice in a row, however rows are mixed: transformers breaks ties of equal ones in Doge at random.
    ids = distinct_ids(1, 68).view(17, 4).T

    def compare(rows: int, start: int, stop: int) -> None:
        positions = torch.arange(start, stop)
        with torch.no_grad():
            expected = theirs(
                ids[:rows, start:stop],
                past_key_values=other,
                position_ids=positions[None].expand(rows, -1),
                use_cache=True,
                cache_position=positions,
            ).logits
        torch.testing.assert_close(read(ours, mine, ids[:rows, start:stop]), expected, **CLOSE)
        assert mine.get_seq_length() == other.get_seq_length()

    def do(operation: str, *arguments: Any) -> None:
        for cache in (mine, other):
            getattr(cache, operation)(*arguments)

    compare(3, 0, 7)
    for column in range(7, 12):
        compare(3, column, column + 1)
    do("crop", 9)
    compare(3, 9, 13)
    do("crop", -2)
    compare(3, 11, 12)
    do("reorder_cache", torch.tensor([2, 0, 0]))
    compare(3, 12, 13)
    do("batch_select_indices", torch.tensor([0, 2]))
    compare(2, 13, 14)
    do("batch_repeat_interleave", 2)
    for column in range(14, 17):
        compare(4, column, column + 1)
    legacy = mine.to_legacy_cache()
    assert len(legacy) == len(mine.key_cache) == len(mine.value_cache) == 2
    for layer, (keys, values) in enumerate(legacy):
        torch.testing.assert_close(keys, other.layers[layer].keys, **CLOSE)
        torch.testing.assert_close(values, other.layers[layer].values, **CLOSE)


KINDS: dict[str, Callable[[], Cache]] = {
    "dynamic": DynamicCache,
    "static": StaticCache,
    "sliding": SlidingWindowCache,
    "offloaded": OffloadedCache,
    "quantized": lambda: QuantizedCache(nbits=4, q_group_size=16, residual_length=7),
}


class Model:
    """A cache as lists of tokens, which are read again from the beginning, each row by itself into a new cache."""

    def __init__(self, name: str, kind: str) -> None:
        self.model, self.make, self.rows = MODELS[name], KINDS[kind], np.zeros((0, 0), np.int64)

    def logits(self, new: np.ndarray) -> list[torch.Tensor]:
        """Of each row, those of its new tokens; `new` are columns with PADDING."""
        if not self.rows.shape[1]:
            self.rows = np.zeros((len(new), 0), np.int64)
        self.rows = np.concatenate([self.rows, new], 1)
        found = []
        for row, added in zip(self.rows, new):
            tokens, count = row[row != PADDING], int((added != PADDING).sum())
            logits = read(
                self.model, None if self.make is DynamicCache else self.make(), torch.from_numpy(tokens)[None]
            )
            found.append(logits[0, len(tokens) - count :])
        return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_operations_in_any_order(data: st.DataObject) -> None:
    name, kind = data.draw(st.sampled_from(ALL)), data.draw(st.sampled_from(sorted(KINDS)))
    expected, cache = Model(name, kind), KINDS[kind]()
    rows = data.draw(st.integers(1, 3))
    for _ in range(data.draw(st.integers(1, 7))):
        width = data.draw(st.sampled_from([1, 1, 1, 3, 17, 40]))
        if cache.get_seq_length() + width > 128:
            break
        seed = data.draw(st.integers(0, 99))
        random = np.random.default_rng(seed)
        new = random.integers(0, VOCABULARY, (rows, width))
        if width > 1 or cache.get_seq_length():
            new[random.random(new.shape) < data.draw(st.sampled_from([0, 0, 0.4]))] = PADDING
        whole = np.concatenate([expected.rows, new], 1) if cache.get_seq_length() else new
        for row in np.flatnonzero(~(whole != PADDING).any(1)):
            new[row, 0] = whole[row, -width] = 1
        if (new == PADDING).all():
            new[:, -1] = whole[:, -1] = 2
        logits = read(
            MODELS[name],
            cache,
            torch.from_numpy(np.where(new == PADDING, 0, new)),
            attention_mask=torch.from_numpy((whole != PADDING).astype(np.int64)),
        )
        # Keys that differ by rounding may have another code: more than rounding, less than a form that is not seen.
        near = {"atol": 5e-3, "rtol": 5e-3} if kind == "quantized" else CLOSE
        for row, wanted in enumerate(expected.logits(new)):
            torch.testing.assert_close(logits[row, new[row] != PADDING], wanted, **near)
        assert (cache.columns.ids == expected.rows).all()
        change = data.draw(st.sampled_from(["nothing", "nothing", "crop", "reorder", "repeat", "copy", "lost"]))
        if change == "crop":
            length = data.draw(st.integers(0, cache.get_seq_length()))
            cache.crop(length)
            expected.rows = expected.rows[:, :length]
        elif change == "reorder":
            chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=4))
            cache.reorder_cache(torch.tensor(chosen))
            expected.rows, rows = expected.rows[chosen], len(chosen)
        elif change == "repeat" and rows < 3:
            cache.batch_repeat_interleave(2)
            expected.rows, rows = expected.rows.repeat(2, 0), 2 * rows
        elif change == "copy":
            before, cache = cache, copy.deepcopy(cache)
            read(MODELS[name], before, torch.ones(rows, 1, dtype=torch.long))
        elif change == "lost":
            cache = pickle.loads(pickle.dumps(cache))


def test_even_batches_are_read_in_place_however_they_grow() -> None:
    model, cache = MODELS["llama"], DynamicCache()
    read(model, cache, distinct_ids(3, 20))
    for _ in range(80):
        read(model, cache, distinct_ids(3, 1))
        tables = [row.tables[0] for row in cache.pages.plan([np.zeros(1, np.int64)] * 3, [200] * 3)]
        assert all((np.diff(table) == 1).all() for table in tables)
        steps = np.diff([table[0] for table in tables])
        assert steps[0] == steps[1] >= len(tables[0])
    assert cache.pages.bytes <= 2 * 3 * 112 * 2 * 2 * 16 * 4


def test_rows_that_begin_equally_share_their_pages() -> None:
    model, cache = MODELS["llama"], DynamicCache()
    stem = torch.cat([distinct_ids(1, 60), distinct_ids(1, 52)], 1)
    read(model, cache, stem)
    alone = cache.pages.bytes
    cache.batch_repeat_interleave(8)
    read(model, cache, distinct_ids(8, 2))
    assert cache.pages.bytes < 5 * alone
    ids = torch.cat([stem.expand(8, -1), distinct_ids(8, 2), distinct_ids(8, 1)], 1)
    torch.testing.assert_close(read(model, cache, ids[:, -1:])[:, 0], read(model, None, ids)[:, -1], **CLOSE)


def test_pages_behind_a_window_are_given_back() -> None:
    fields = {"attention_types": [[["local"], 2]], "max_position_embeddings": 2048}
    model, cache = tiny("gpt_neo", **fields), DynamicCache()
    sizes = []
    for _ in range(30):
        read(model, cache, distinct_ids(1, 40))
        sizes.append(cache.pages.bytes)
    assert sizes[-1] == sizes[4]
    with pytest.raises(ArgumentError, match="layer 0 of past_key_values does not hold all of row 0 as numbers"):
        cache[0]
    cache.crop(300)  # what the next token sees is gone, and read again
    ids = cache.columns.ids
    found = read(model, cache, distinct_ids(1, 1))
    again = torch.cat([torch.from_numpy(ids), distinct_ids(1, 1)], 1)
    torch.testing.assert_close(found[:, -1], read(model, None, again)[:, -1], **CLOSE)


def test_what_cannot_be_named_is_not_read_again() -> None:
    model, ids = MODELS["llama"], distinct_ids(2, 5)
    embeds = model.get_input_embeddings()(ids)
    counted, own = torch.arange(5)[None], torch.arange(3, 8)[None].expand(2, -1)
    for arguments, known in (
        ({"input_ids": ids}, True),
        ({"input_ids": ids, "position_ids": counted}, True),
        ({"input_ids": ids, "position_ids": own}, False),
        ({"inputs_embeds": embeds}, False),
    ):
        cache = DynamicCache()
        with torch.no_grad():
            model(**arguments, past_key_values=cache)
        assert cache.columns.known == known
        assert known or (cache.columns.ids == UNKNOWN).all()
        cache.batch_repeat_interleave(2)
        read(model, copy.deepcopy(cache), ids.repeat_interleave(2, 0))
        lost = pickle.loads(pickle.dumps(cache))
        if known:
            read(model, lost, ids.repeat_interleave(2, 0))
        else:
            with pytest.raises(ArgumentError, match="inputs_embeds, or with position_ids"):
                read(model, lost, ids.repeat_interleave(2, 0))


def test_a_static_cache_is_refused_more_than_it_holds() -> None:
    model, cache = MODELS["gpt2"], StaticCache(max_batch_size=2, max_cache_len=8)
    read(model, cache, distinct_ids(2, 6))
    with pytest.raises(ArgumentError, match="max_cache_len=8, but 9 columns"):
        read(model, cache, distinct_ids(2, 3))
    read(model, cache, distinct_ids(2, 2))
    cache.reset()
    with pytest.raises(ArgumentError, match="max_batch_size=2, but the batch has 3"):
        read(model, cache, distinct_ids(3, 3))
    read(model, cache, distinct_ids(1, 3))


def test_a_pair_of_caches_serves_a_decoder_by_its_first() -> None:
    model, ids = MODELS["gpt2"], distinct_ids(2, 9)
    both = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.no_grad():
        output = model(ids[:, :5], past_key_values=both, use_cache=True)
    assert output.past_key_values is both
    torch.testing.assert_close(read(model, both, ids[:, 5:]), read(model, None, ids)[:, 5:], **CLOSE)
    assert (both.get_seq_length(), both.cross_attention_cache.get_seq_length()) == (9, 0)


def test_what_is_no_cache_is_refused() -> None:
    ids = distinct_ids(1, 3)
    for wrong, remedy in (((), "from outside"), ("dynamic", "new DynamicCache")):
        with pytest.raises(ArgumentError, match=remedy):
            MODELS["gpt2"](ids, past_key_values=wrong)


def test_a_cache_that_was_emptied_takes_another_batch() -> None:
    model, cache = MODELS["llama"], DynamicCache()
    read(model, cache, distinct_ids(2, 5))
    cache.crop(0)
    ids = distinct_ids(3, 4)
    torch.testing.assert_close(read(model, cache, ids), read(model, None, ids), **CLOSE)
    assert cache.batch_size == 3


def test_a_call_that_fails_leaves_the_cache_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, ids = copy.deepcopy(MODELS["llama"]), DynamicCache(), distinct_ids(2, 30)
    read(model, cache, ids[:, :15])

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    hook = model.base_model.blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no"):
        read(model, cache, ids[:, 15:])
    hook.remove()
    cache.reorder_cache(torch.tensor([1, 1]))
    torch.testing.assert_close(read(model, cache, ids[[1, 1], 15:]), read(model, None, ids[[1, 1]])[:, 15:], **CLOSE)


@pytest.mark.parametrize("name", ["llama", "doge", "gpt2"])
@pytest.mark.parametrize("make", [DynamicCache, OffloadedCache])
def test_caches_are_filled_under_autocast(name: str, make: Callable[[], Any]) -> None:
    model, ids = MODELS[name], distinct_ids(2, 12)
    exact = read(model, make(), ids)
    with torch.autocast("cpu", torch.bfloat16):
        cache = make()
        pieces = [read(model, cache, ids[:, :7]), read(model, cache, ids[:, 7:])]
        whole = read(model, make(), ids)
    assert not torch.equal(whole.float(), exact)
    torch.testing.assert_close(torch.cat(pieces, 1).float(), whole.float(), atol=0.1, rtol=0.1)
    torch.testing.assert_close(whole.float(), exact, atol=0.3, rtol=0.1)
