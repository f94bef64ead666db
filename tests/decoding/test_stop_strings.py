"""Stop strings with real tokenizers, against decoding everything: exactly the token that completes one is found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loquent
from loquent.decoding.criteria import StopStringCriteria
from loquent.decoding.stop_strings import StopStrings
from loquent.errors import ArgumentError

TEXT = "Once upon a time, naïve 犬🐶🏽 said:\n\n'Stop  here… STOP' — and </s> then ü ended?\n"
KINDS = {"gpt2": "tokenizers/gpt2", "llama": "tokenizers/llama", "stories": "models/stories260k"}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, shared_data: Path) -> Any:
    folder = shared_data / KINDS[request.param]
    if request.param == "llama":
        return loquent.LlamaTokenizer.from_pretrained(folder)
    return loquent.AutoTokenizer.from_pretrained(folder)


def decode(tokenizer: Any, tokens: list[int]) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def completed(tokenizer: Any, tokens: list[int], stop: str) -> list[int]:
    """Brute force: the lengths at which the whole text has one more `stop` than one token before."""
    found = []
    for length in range(1, len(tokens) + 1):
        before, text = decode(tokenizer, tokens[: length - 1]), decode(tokenizer, tokens[:length])
        settled = 0
        while settled < min(len(before), len(text)) and before[settled] == text[settled]:
            settled += 1
        ends = [at + len(stop) for at in range(len(text)) if text.startswith(stop, at)]
        if any(end > settled for end in ends):
            found.append(length)
    return found


def flagged(tokenizer: Any, tokens: list[int], *stops: str) -> list[int]:
    strings = StopStrings(stops, tokenizer)
    return [n for n in range(1, len(tokens) + 1) if strings.found(np.array(tokens[:n], np.int64))]


@pytest.mark.parametrize(
    "stop",
    [
        "time",
        "pon a",
        ", naï",
        "犬",
        "🐶",
        "🐶🏽",
        "\n\n",
        "'",
        "Stop  he",
        "…",
        "STOP",
        "</s>",
        " — and",
        "ü",
        "?\n",
        "no",
    ],
)
def test_every_place_where_a_string_is_complete(tokenizer: Any, stop: str) -> None:
    tokens = tokenizer.encode(TEXT, add_special_tokens=False)
    expected = completed(tokenizer, tokens, stop)
    assert flagged(tokenizer, tokens, stop) == expected
    assert bool(expected) == (stop in decode(tokenizer, tokens))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tokens_and_any_piece_of_their_text(tokenizer: Any, data: st.DataObject) -> None:
    """Random ids: broken characters, special tokens, bytes; the string is cut out of their own text."""
    tokens = data.draw(st.lists(st.integers(0, min(tokenizer.vocab_size, 500) - 1), min_size=1, max_size=24))
    text = decode(tokenizer, tokens)
    start = data.draw(st.integers(0, max(len(text) - 1, 0)))
    stop = text[start : start + data.draw(st.integers(1, 12))]
    if stop and "\ufffd" not in stop:
        assert flagged(tokenizer, tokens, stop) == completed(tokenizer, tokens, stop)


TEXTS = st.text(st.sampled_from("ab  \n.,'é—犬🐶🏽"), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, others=st.lists(TEXTS, max_size=3), data=st.data())
def test_the_first_token_with_which_a_text_has_one_of_the_strings(
    tokenizer: Any, text: str, others: list[str], data: st.DataObject
) -> None:
    """Plain `in`, on the decoded text; characters without a token of their own make runs of bytes."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    whole = decode(tokenizer, tokens)
    start = data.draw(st.integers(0, max(len(whole) - 1, 0)))
    stops = [stop for stop in (whole[start : start + data.draw(st.integers(1, 30))], *others) if stop]
    texts = [decode(tokenizer, tokens[:length]) for length in range(1, len(tokens) + 1)]
    expected = next((at + 1 for at, done in enumerate(texts) if any(stop in done for stop in stops)), None)
    assert next(iter(flagged(tokenizer, tokens, *stops)), None) == expected


def test_it_costs_little_however_many_and_long_the_strings_are(tokenizer: Any) -> None:
    """Made in a moment; a token costs two decodings of a few tokens, unless it ends in what a string ends in."""

    class Counting:
        decoded = 0

        def decode(self, token_ids: Any, **kwargs: Any) -> str:
            self.decoded += len(token_ids)
            return str(tokenizer.decode(token_ids, **kwargs))

    counting = Counting()
    tokens = np.array(tokenizer.encode(TEXT * 20, add_special_tokens=False), np.int64)
    begun = time.perf_counter()
    strings = StopStrings((*[f"never {i}#" for i in range(2000)], "x" * 1000 + "#"), counting)
    assert not strings.found(tokens[:1])
    assert time.perf_counter() - begun < 0.01
    counting.decoded = 0
    plain = [n for n in range(1, len(tokens) + 1) if "\ufffd" not in decode(tokenizer, tokens[max(0, n - 12) : n])]
    assert not any(strings.found(tokens[:n]) for n in plain)
    assert counting.decoded <= 24 * len(plain)


def test_several_strings_and_the_first_to_be_complete(tokenizer: Any) -> None:
    tokens = tokenizer.encode("one two three four", add_special_tokens=False)
    both = flagged(tokenizer, tokens, "four", "two")
    assert both == sorted(completed(tokenizer, tokens, "four") + completed(tokenizer, tokens, "two"))
    criterion = StopStringCriteria(tokenizer, ["four", "two"])
    assert [n for n in range(1, len(tokens) + 1) if criterion(np.array([tokens[:n]]), None)] == both


def test_an_empty_text_is_refused(tokenizer: Any) -> None:
    for texts in ((), ("",), ("stop", "")):
        with pytest.raises(ArgumentError, match="stop_strings"):
            StopStrings(texts, tokenizer)


def test_a_long_text_is_not_decoded_again_and_again(tokenizer: Any) -> None:
    class Counting:
        most = 0

        def decode(self, token_ids: Any, **kwargs: Any) -> str:
            self.most = max(self.most, len(token_ids))
            return str(tokenizer.decode(token_ids, **kwargs))

    counting = Counting()
    tokens = np.array(tokenizer.encode(TEXT * 40, add_special_tokens=False), np.int64)
    assert not StopStrings(("never there",), counting).found(tokens)
    assert counting.most < 60 < len(tokens)
