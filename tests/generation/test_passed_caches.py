"""Caches passed to `generate()`: results are those without one, less is read, and nothing is held for nobody."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import loquent
from decoding.pairs import VOCABULARY, random_llama
from loquent import DynamicCache, EncoderDecoderCache, StaticCache
from loquent.cache.faces import PADDING
from loquent.engine import Engine
from loquent.errors import ArgumentError
from loquent.generation import engine_of, open_engine
from properties.models import EVERY, tiny

TURNS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [22, 23, 3], [4, 30]]
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 3, "temperature": 1.5, "repetition_penalty": 1.1},
    "beams": {"num_beams": 3},
    "constrained beams": {"num_beams": 3, "force_words_ids": [[7]]},
    "diverse beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "guidance": {"guidance_scale": 1.5},
    "dola": {"dola_layers": [1], "repetition_penalty": 1.2},
}
COUNT = {"max_new_tokens": 9}
CODING = {"nbits": 2, "q_group_size": 16, "residual_length": 5}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "offloaded": (loquent.OffloadedCache, {"cache_implementation": "offloaded"}),
    "quantized": (
        lambda: loquent.QuantizedCache(**CODING),
        {"cache_implementation": "quantized", "cache_config": CODING},
    ),
    "static": (lambda: StaticCache(max_cache_len=96), {}),
}


@pytest.fixture
def fresh(tmp_path: Path) -> Any:
    """A model that a test may change."""
    return random_llama(tmp_path, 2)[0]


@pytest.fixture
def read(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each segment has that the model's backend reads."""
    model.generate([[1, 2]], max_new_tokens=1)
    backend, counts = engine_of(model).backend, []
    run = backend.run

    def counting(store: Any, segments: Any, *args: Any) -> Any:
        counts.extend(len(segment.tokens) for segment in segments)
        return run(store, segments, *args)

    monkeypatch.setattr(backend, "run", counting)
    return counts


def held(model: Any) -> int:
    """How many bytes requests and caches hold in the model's stores."""
    return sum(memory.held for memory in engine_of(model).memory())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["llama", "gpt_neo", "doge"])
def test_every_strategy_continues_a_chat_as_without_a_cache(name: str, way: str) -> None:
    model, plain = copy.deepcopy(tiny(name)), copy.deepcopy(tiny(name))
    engine_of(plain).reuse_prefixes = False
    cache, text = DynamicCache(), torch.zeros(1, 0, dtype=torch.long)
    for turn in TURNS:
        text = torch.cat([text, torch.tensor([turn])], 1)
        expected = plain.generate(text, **COUNT, **WAYS[way])
        text = model.generate(text, **COUNT, **WAYS[way], past_key_values=cache)
        assert torch.equal(text, expected)
        assert cache.get_seq_length() == text.shape[1] - 1
        assert cache.columns.ids.tolist() == text[:, :-1].tolist()
    del cache
    assert held(model) == 0


@pytest.mark.parametrize("name", EVERY)
def test_every_family_continues_a_padded_batch(name: str) -> None:
    model = copy.deepcopy(tiny(name))
    ids = torch.tensor([TURNS[0], [0] * 6 + TURNS[0][:11], [0] * 15 + [3, 4]])
    mask = torch.tensor([[1] * 17, [0] * 6 + [1] * 11, [0] * 15 + [1, 1]])
    cache = DynamicCache()
    for turn in TURNS:
        ids = torch.cat([ids, torch.tensor([turn] * 3)], 1)
        mask = torch.cat([mask, torch.ones(3, len(turn), dtype=torch.long)], 1)
        result = model.generate(ids, attention_mask=mask, **COUNT, past_key_values=cache)
        alone = [copy.deepcopy(tiny(name)).generate(row[kept == 1][None], **COUNT) for row, kept in zip(ids, mask)]
        assert result[:, ids.shape[1] :].tolist() == [row[0, -9:].tolist() for row in alone]
        mask = torch.cat([mask, torch.ones(3, 9, dtype=torch.long)], 1)
        ids = result
        assert (cache.columns.ids == np.where(mask, ids, PADDING)[:, :-1]).all()


@pytest.mark.parametrize("way", ["greedy", "beams"])
@pytest.mark.parametrize("kind", ["offloaded", "quantized", "static"])
@pytest.mark.parametrize(
    ("name", "backend"),
    [("llama", "native"), ("gpt_neo", "native"), ("gpt_neo", "torch"), ("doge", "native"), ("doge", "torch")],
)
def test_caches_of_every_kind_continue_a_chat(name: str, kind: str, way: str, backend: str) -> None:
    def fresh() -> Any:
        model = copy.deepcopy(tiny(name))
        if backend == "torch":
            model.head.register_forward_hook(lambda *_: None)
        return model

    model, (make, alike) = fresh(), KINDS[kind]
    cache, text = make(), torch.zeros(1, 0, dtype=torch.long)
    for turn in TURNS:
        text = torch.cat([text, torch.tensor([turn])], 1)
        expected = fresh().generate(text, **COUNT, **WAYS[way], **alike)
        text = model.generate(text, **COUNT, **WAYS[way], past_key_values=cache)
        assert torch.equal(text, expected)
        assert cache.get_seq_length() == text.shape[1] - 1
    with torch.no_grad():
        logits = model(text[:, -1:], past_key_values=cache).logits
        again = model(text, past_key_values=make()).logits[:, -1:]
    torch.testing.assert_close(logits, again, atol=5e-5, rtol=1e-3)
    output = model.generate(text, **COUNT, **alike, return_dict_in_generate=True)
    assert output.past_key_values.kind == make().kind
    assert type(output.past_key_values) is (DynamicCache if kind == "static" else make().__class__)


def test_the_next_turn_reads_little(model: Any, read: list[int]) -> None:
    cache = DynamicCache()
    first = model.generate(torch.tensor([TURNS[0] * 3]), max_new_tokens=8, past_key_values=cache)
    # What else is read in between takes pages that nobody holds.
    model.generate(torch.arange(4 * 60).view(4, 60) % VOCABULARY, max_new_tokens=2)
    engine_of(model).release_memory()
    read.clear()
    model.generate(torch.cat([first, torch.tensor([[7, 8, 9]])], 1), max_new_tokens=1, past_key_values=cache)
    assert sum(read) < 16 + 4
    del cache


def test_rows_that_ended_early_and_what_they_are_filled_with(model: Any) -> None:
    ids = torch.tensor([TURNS[0], TURNS[0][::-1]])
    unbounded = model.generate(ids, max_new_tokens=8)
    ends = int(unbounded[0, 19])
    cache = DynamicCache()
    result = model.generate(ids, max_new_tokens=8, eos_token_id=ends, pad_token_id=0, past_key_values=cache)
    first = int((result[0, 17:] == ends).nonzero()[0]) + 18
    assert first < result.shape[1]
    assert cache.columns.ids[0].tolist() == result[0, :first].tolist() + [PADDING] * (result.shape[1] - 1 - first)
    mask = torch.from_numpy(np.concatenate([cache.columns.seen, [[False], [True]]], 1))
    more = torch.cat([result, torch.tensor([[8, 9], [8, 9]])], 1)
    mask = torch.cat([mask, torch.ones(2, 2, dtype=torch.bool)], 1).long()
    found = model.generate(more, attention_mask=mask, max_new_tokens=5, past_key_values=cache)
    assert torch.equal(found, model.generate(more, attention_mask=mask, max_new_tokens=5))


@pytest.mark.parametrize("way", ["greedy", "sampling", "beams"])
def test_an_output_has_the_cache_of_its_rows(model: Any, way: str) -> None:
    asked = {**COUNT, **WAYS[way], "num_return_sequences": 1 if way == "greedy" else 2}
    ids = torch.tensor([TURNS[0], TURNS[0][::-1]])
    output = model.generate(ids, return_dict_in_generate=True, **asked)
    cache = output.past_key_values
    assert isinstance(cache, DynamicCache)
    assert cache.columns.ids.tolist() == output.sequences[:, :-1].tolist()
    assert len(cache) == 2
    more = torch.cat([output.sequences, torch.tensor([[9]] * len(output.sequences))], 1)
    assert torch.equal(model.generate(more, **COUNT, past_key_values=cache), model.generate(more, **COUNT))
    assert model.generate(ids, return_dict_in_generate=True, use_cache=False, **asked).past_key_values is None


def test_an_output_has_the_cache_that_was_passed(model: Any) -> None:
    both = EncoderDecoderCache(StaticCache(max_cache_len=30), DynamicCache())
    output = model.generate(torch.tensor([TURNS[0]]), **COUNT, past_key_values=both, return_dict_in_generate=True)
    assert output.past_key_values is both
    assert both.get_seq_length() == 25


def test_a_cache_serves_every_row_that_its_rows_are_repeated_for(model: Any) -> None:
    cache = DynamicCache()
    model.generate(torch.tensor([TURNS[0]]), max_new_tokens=1, past_key_values=cache)
    twins = [copy.deepcopy(cache) for _ in range(2)]
    for twin, ending in zip(twins, ([3], [9, 9])):
        ids = torch.tensor([TURNS[0] + ending])
        assert torch.equal(model.generate(ids, **COUNT, past_key_values=twin), model.generate(ids, **COUNT))
    assert cache.columns.ids.tolist() == [TURNS[0]]
    cache.batch_repeat_interleave(2)
    ids = torch.tensor([[*TURNS[0], 3], [*TURNS[0], 9]])
    assert torch.equal(model.generate(ids, **COUNT, past_key_values=cache), model.generate(ids, **COUNT))
    cache = pickle.loads(pickle.dumps(cache))
    cache.batch_repeat_interleave(3)
    cache.crop(17)
    ids = torch.tensor([[*TURNS[0], 3], [*TURNS[0], 9]])
    output = model.generate(ids, **COUNT, do_sample=True, num_return_sequences=3, past_key_values=cache)
    assert cache.columns.ids.tolist() == output[:, :-1].tolist()


def test_streams_requests_and_what_was_left_fill_a_cache(model: Any) -> None:
    ids, cache = torch.tensor([TURNS[0]]), DynamicCache()
    for event in model.stream(ids, **COUNT, past_key_values=cache):
        assert event.row == 0
    assert cache.get_seq_length() == 25
    whole = cache.columns.ids.tolist()
    cache.crop(17)
    handle = open_engine(model).submit(TURNS[0], **COUNT, past_key_values=cache)
    handle.result()
    assert cache.columns.ids.tolist() == whole
    cache.crop(3)
    handle.result()
    assert cache.get_seq_length() == 3

    class Leaves:
        """A streamer whose reader goes after a few tokens."""

        def __init__(self) -> None:
            self.left = 4

        def put(self, value: Any) -> None:
            self.left -= 1
            if not self.left:
                raise loquent.RequestCancelledError("gone")

        def end(self) -> None: ...

    result = model.generate(ids, **COUNT, past_key_values=cache, streamer=Leaves())
    assert cache.columns.ids.tolist() == result[:, :-1].tolist()
    assert 17 < result.shape[1] < 26


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "other tokens": ({"inputs": [[5, 6, 9, 8]]}, r"row 0 of input_ids differs from past_key_values at token 2: 9 .* 7"),
    "fewer tokens": ({"inputs": [[5, 6]]}, "row 0 of input_ids has 2 tokens, but past_key_values holds 3"),
    "more rows": ({"inputs": [[5, 6, 7, 8]] * 2}, "holds 1 rows, but input_ids has 2"),
    "two kinds": ({"inputs": [[5, 6, 7, 8]], "cache_implementation": "offloaded"}, "cache_implementation='offloaded'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_begin_with_the_cache_is_refused(model: Any, case: str) -> None:
    arguments, message = REFUSED[case]
    cache = DynamicCache()
    cache.columns.append(np.array([[5, 6, 7]]))
    with pytest.raises(ArgumentError, match=message):
        model.generate(**arguments, **COUNT, past_key_values=cache)
    assert cache.columns.ids.tolist() == [[5, 6, 7]]


def test_what_is_no_cache_is_refused(model: Any) -> None:
    for wrong in (((torch.zeros(1),),), object()):
        with pytest.raises(ArgumentError, match=r"past_key_values is a .*, not a cache"):
            model.generate([[5, 6]], past_key_values=wrong)


def test_a_static_cache_keeps_to_its_size(model: Any) -> None:
    ids, cache = torch.tensor([TURNS[0]]), StaticCache(max_batch_size=1, max_cache_len=20)
    with pytest.raises(ArgumentError, match="max_cache_len=20, but 21 columns"):
        model.generate(ids, max_new_tokens=5, past_key_values=cache)
    model.generate(ids, max_new_tokens=4, past_key_values=cache)
    assert cache.get_seq_length() == 20
    with pytest.raises(ArgumentError, match="max_batch_size=1"):
        model.generate(
            ids, max_new_tokens=2, do_sample=True, num_return_sequences=2, past_key_values=StaticCache(None, 1)
        )


def test_what_forward_has_read_is_continued(model: Any) -> None:
    ids = torch.tensor([TURNS[0], TURNS[0][::-1]])
    cache = DynamicCache()
    with torch.no_grad():
        model(ids[:, :12], past_key_values=cache)
    expected = model.generate(ids, **COUNT)
    assert torch.equal(model.generate(ids, **COUNT, past_key_values=cache), expected)
    with torch.no_grad():
        logits = model(expected[:, -1:], past_key_values=cache).logits
        torch.testing.assert_close(logits, model(expected).logits[:, -1:], atol=2e-5, rtol=1e-4)
    assert cache.columns.ids.tolist() == expected.tolist()
    embedded = DynamicCache()
    model(inputs_embeds=model.get_input_embeddings()(ids), past_key_values=embedded)
    with pytest.raises(ArgumentError, match="inputs_embeds"):
        model.generate(ids, past_key_values=embedded)


def test_caches_hold_pages_until_they_are_dropped(model: Any) -> None:
    cache = model.generate(torch.tensor([TURNS[0] * 2]), **COUNT, return_dict_in_generate=True).past_key_values
    whole = held(model)
    assert whole > 0
    cache.crop(16)
    assert 0 < held(model) < whole
    twin = copy.deepcopy(cache)
    cache.reset()
    assert held(model) > 0
    del twin
    assert held(model) == 0


def test_nothing_is_used_after_the_weights_have_changed(fresh: Any) -> None:
    ids, cache = torch.tensor([TURNS[0] * 2]), DynamicCache()
    text = fresh.generate(ids, **COUNT, past_key_values=cache)
    twin = copy.deepcopy(cache)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.mul_(1.3)
    expected = copy.deepcopy(fresh).generate(text, **COUNT)
    assert torch.equal(fresh.generate(text, **COUNT, past_key_values=cache), expected)
    assert torch.equal(fresh.generate(text, **COUNT, past_key_values=twin), expected)


def test_a_cache_keeps_no_model_alive(tmp_path: Path) -> None:
    fresh = random_llama(tmp_path, 2)[0]
    cache = fresh.generate(torch.tensor([TURNS[0]]), **COUNT, return_dict_in_generate=True).past_key_values
    gone = weakref.ref(fresh), weakref.ref(engine_of(fresh))
    gc.disable()
    try:
        del fresh
        found = [each() for each in gone]
    finally:
        gc.enable()
    assert cache.get_seq_length() == 25
    cache.batch_repeat_interleave(2)
    cache.crop(3)
    assert found == [None, None]


def test_caches_give_way_to_requests(model: Any) -> None:
    backend = engine_of(model).backend
    page = sum(group.bytes_per_page for group in backend.open_store(16).groups)
    before = engine_of(model)
    engine = model._engine_slot.engine = Engine(backend, kv_memory=6 * page)
    try:
        ids = torch.tensor([TURNS[0] * 2])
        cache = DynamicCache()
        text = model.generate(ids, **COUNT, past_key_values=cache)
        assert engine_of(model) is engine
        assert held(model) == 2 * page
        other = model.generate(ids.flip(1), max_new_tokens=28)
        assert other.shape == (1, 62)
        rows = model.generate(torch.cat([ids, ids.flip(1), ids + 1]) % VOCABULARY, max_new_tokens=8)
        assert held(model) == 0
        more = torch.cat([text, torch.tensor([[7, 8]])], 1)
        assert torch.equal(model.generate(more, **COUNT, past_key_values=cache)[:, : text.shape[1]], text)
    finally:
        model._engine_slot.engine = before
    assert torch.equal(rows, model.generate(torch.cat([ids, ids.flip(1), ids + 1]) % VOCABULARY, max_new_tokens=8))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_done_to_a_cache_between_turns(data: st.DataObject) -> None:
    """Cropped, reordered, repeated, copied, read on by forward: the next turn is that of its tokens alone."""
    model = tiny(data.draw(st.sampled_from(["llama", "gpt_neo", "doge"])))
    tokens = st.integers(0, 30)
    cache: Any = DynamicCache()
    text = torch.tensor(data.draw(st.lists(st.lists(tokens, min_size=4, max_size=4), min_size=1, max_size=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        new = torch.tensor(data.draw(st.lists(tokens, min_size=len(text), max_size=len(text)))).view(-1, 1)
        text = torch.cat([text, new], 1)
        if data.draw(st.booleans()):
            count = data.draw(st.integers(1, 20))
            expected = model.generate(text, max_new_tokens=count)
            text = model.generate(text, max_new_tokens=count, past_key_values=cache)
            assert torch.equal(text, expected)
            text = text[:, :-1]
        else:
            with torch.no_grad():
                logits = model(text[:, cache.get_seq_length() :], past_key_values=cache).logits
                torch.testing.assert_close(logits[:, -1], model(text).logits[:, -1], atol=5e-5, rtol=1e-3)
        assert cache.columns.ids.tolist() == text.tolist()
        change = data.draw(st.sampled_from(["crop", "reorder", "repeat", "copy", "pickle", "nothing"]))
        if change == "crop":
            length = data.draw(st.integers(1, text.shape[1]))
            cache.crop(length)
            text = text[:, :length]
        elif change == "reorder":
            rows = data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3))
            cache.reorder_cache(torch.tensor(rows))
            text = text[rows]
        elif change == "repeat" and len(text) < 3:
            cache.batch_repeat_interleave(2)
            text = text.repeat_interleave(2, 0)
        elif change == "copy":
            cache = copy.deepcopy(cache)
        elif change == "pickle":
            cache = pickle.loads(pickle.dumps(cache))
