"""Streaming text: all pieces together are what `decode` gives, in whatever portions the ids come."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from loquent.tokenization import (
    GPT2Tokenizer,
    IncrementalDetokenizer,
    LlamaTokenizer,
    OpenAIGPTTokenizer,
    PreTrainedTokenizer,
    T5Tokenizer,
)
from loquent.tokenization.detokenizer import AtTheEnd, Replace, steps_of

NAMES = {
    "gpt2": (GPT2Tokenizer, "tokenizers/gpt2"),
    "llama": (LlamaTokenizer, "tokenizers/llama"),
    "stories260k": (PreTrainedTokenizer, "models/stories260k"),
    "t5": (T5Tokenizer, "tokenizers/t5"),
    "openai-gpt": (OpenAIGPTTokenizer, "tokenizers/openai-gpt"),
}
_LOADED: dict[str, PreTrainedTokenizer] = {}


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> PreTrainedTokenizer:
    name = request.param
    if name not in _LOADED:
        cls, folder = NAMES[name]
        _LOADED[name] = cls.from_pretrained(shared_data / folder)
    return _LOADED[name]


def streamed(tokenizer: PreTrainedTokenizer, ids: list[int], cuts: list[int], **options: bool) -> str:
    """The text of ids that come in portions, each piece checked to be final."""
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    whole = tokenizer.decode(ids, **options)
    places = sorted({0, *(cut % (len(ids) + 1) for cut in cuts), len(ids)})
    text = ""
    for start, end in pairwise(places):
        text += detokenizer.push(ids[start:end])
        assert whole.startswith(text)
    return text + detokenizer.flush()


FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES)
@given(data=st.data(), cuts=st.lists(st.integers(0, 1000)), skip=st.booleans(), clean=st.booleans())
def test_random_ids(
    tokenizer: PreTrainedTokenizer, data: st.DataObject, cuts: list[int], skip: bool, clean: bool
) -> None:
    # The small ids are the bytes and special tokens, which are the hard ones; past the end are unknown ids.
    index = st.integers(0, 300) | st.integers(0, len(tokenizer) + 3)
    ids = data.draw(st.lists(index, max_size=40))
    options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
    assert streamed(tokenizer, ids, cuts, **options) == tokenizer.decode(ids, **options)


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES)
@given(text=st.text(max_size=40), cuts=st.lists(st.integers(0, 1000)), clean=st.booleans())
@example(text="👩‍👩‍👧 日本語 e\u0301 ", cuts=[1, 2, 3, 4, 5], clean=False)
@example(text="I ' m here , you ' re not . don n't ?", cuts=[1, 2, 3, 4, 5, 6], clean=True)
def test_random_text(tokenizer: PreTrainedTokenizer, text: str, cuts: list[int], clean: bool) -> None:
    ids = tokenizer(text).input_ids
    options = {"clean_up_tokenization_spaces": clean}
    assert streamed(tokenizer, ids, cuts, **options) == tokenizer.decode(ids, **options)


def test_texts_in_many_scripts(tokenizer: PreTrainedTokenizer, strings: list[str]) -> None:
    for text in strings:
        ids = tokenizer(text).input_ids
        assert streamed(tokenizer, ids, list(range(len(ids)))) == tokenizer.decode(ids)


def test_never_half_a_character(small: GPT2Tokenizer) -> None:
    detokenizer = IncrementalDetokenizer(small)
    pieces = [detokenizer.push([index]) for index in small("naïve 日本 👍").input_ids]
    assert "".join(pieces) == "naïve 日本 👍"
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert detokenizer.flush() == ""


def test_an_unfinished_character_comes_at_the_end(small: GPT2Tokenizer) -> None:
    ids = small("日").input_ids[:-1]
    detokenizer = IncrementalDetokenizer(small)
    assert detokenizer.push(ids) == ""
    assert detokenizer.flush() == "\N{REPLACEMENT CHARACTER}"


def test_words_come_at_once(small: GPT2Tokenizer) -> None:
    detokenizer = IncrementalDetokenizer(small)
    ids = small("the cat sat").input_ids
    assert [detokenizer.push([index]) for index in ids] == [small.decode([index]) for index in ids]


def test_special_tokens_are_left_out(small: GPT2Tokenizer) -> None:
    ids = [*small("the cat").input_ids, small.eos_token_id]
    assert IncrementalDetokenizer(small, skip_special_tokens=True).push(ids) == "the cat"
    assert IncrementalDetokenizer(small).push(ids) == "the cat<|endoftext|>"


def test_an_added_token_that_looks_like_bytes(small: GPT2Tokenizer) -> None:
    small.add_tokens([AddedToken("日 本"), AddedToken("Ġ")])
    ids = small("a日 本Ġb").input_ids
    assert streamed(small, ids, list(range(9))) == small.decode(ids)


DECODERS = {
    "none": None,
    "wordpiece": decoders.WordPiece(),
    "wordpiece without cleanup": decoders.WordPiece(cleanup=False),
    "bpe": decoders.BPEDecoder(suffix="a"),
    "metaspace": decoders.Metaspace("b", prepend_scheme="always"),
    "metaspace never": decoders.Metaspace("b", prepend_scheme="never"),
    "fallback": decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip("a", 2, 0)]),
    "replace after fuse": decoders.Sequence([decoders.Fuse(), decoders.Replace("aba", "c")]),
    "strip each": decoders.Sequence([decoders.Strip("a", 1, 0), decoders.Replace("b", "ab")]),
    "strip at the end": decoders.Sequence([decoders.Fuse(), decoders.Strip("a", 0, 1)]),
    "ctc": decoders.CTC(),
}
TOKENS = [
    "a",
    "b",
    "ab",
    "ba",
    "aab",
    "##a",
    "##b",
    "bab",
    ".",
    "?",
    "<0xE6>",
    "<0x97>",
    "<0xA5>",
    "<0x41>",
    "<pad>",
    "|",
]


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=80, deadline=None)
@given(ids=st.lists(st.integers(0, len(TOKENS)), max_size=24), cuts=st.lists(st.integers(0, 30)))
def test_every_kind_of_decoder(name: str, ids: list[int], cuts: list[int]) -> None:
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}, "a"))
    if DECODERS[name] is not None:
        backend.decoder = DECODERS[name]
    tokenizer = PreTrainedTokenizer(tokenizer_object=backend)
    # The library panics where it strips the end of an empty text.
    ids = [1, *ids] if name == "strip at the end" else ids
    assert streamed(tokenizer, ids, cuts) == tokenizer.decode(ids)


def test_only_unknown_decoders_wait_for_the_end() -> None:
    waiting = {name for name, one in DECODERS.items() if any(isinstance(step, AtTheEnd) for step in steps_of(one))}
    assert waiting == {"ctc", "strip at the end"}


@given(
    pieces=st.lists(st.text("ab ", max_size=5), max_size=12),
    pattern=st.text("ab ", min_size=1, max_size=4),
    replacement=st.text("abc", max_size=2),
)
def test_replacing_in_pieces(pieces: list[str], pattern: str, replacement: str) -> None:
    step = Replace(pattern, replacement)
    out = [made for piece in pieces for made in step.push(piece)] + list(step.flush())
    assert "".join(out) == "".join(pieces).replace(pattern, replacement)


def test_the_work_per_token_does_not_grow(small: GPT2Tokenizer) -> None:
    ids = small("one two three " * 200).input_ids

    def seconds(count: int) -> float:
        detokenizer = IncrementalDetokenizer(small, clean_up_tokenization_spaces=True)
        start = time.perf_counter()
        for index in (ids * 100)[:count]:
            detokenizer.push([index])
        return time.perf_counter() - start

    seconds(2_000)
    # Twenty times the tokens; a quadratic one would take four hundred times as long.
    assert seconds(40_000) < 100 * seconds(2_000)
