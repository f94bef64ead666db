"""Texts to ids: BOS and EOS as the tokenizer has them, and the same ids for a text of any length."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from loquent.errors import ArgumentError
from loquent.tokenization import GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast, T5Tokenizer
from loquent.training.data import encode_texts, encoding, line_breaks, windows
from training.data_tokenizers import TEXT, byte_level


def ids_of(examples: Any) -> list[list[int]]:
    return [examples.document(index)[0].tolist() for index in range(len(examples))]


def test_each_text_ends_with_eos_and_counts_but_for_its_first_token() -> None:
    tokenizer = byte_level()
    examples = encode_texts(tokenizer, iter(TEXT))
    assert ids_of(examples) == [[*tokenizer(text)["input_ids"], 0] for text in TEXT]
    assert examples.counted.tolist() == [at > 0 for ids in ids_of(examples) for at in range(len(ids))]
    assert examples.tokens.dtype == np.uint16
    without = encode_texts(tokenizer, TEXT, end_of_document=False)
    assert ids_of(without) == [tokenizer(text)["input_ids"] for text in TEXT]


def test_what_the_tokenizer_puts_around_a_text_stays(shared_data: Path) -> None:
    llama = LlamaTokenizer.from_pretrained(shared_data / "models" / "stories260k")
    assert llama.add_bos_token
    expected = [[*llama(text)["input_ids"], llama.eos_token_id] for text in TEXT]
    assert ids_of(encode_texts(llama, TEXT)) == expected
    assert expected[0][0] == llama.bos_token_id
    assert ids_of(encode_texts(llama, TEXT, end_of_document=False)) == [ids[:-1] for ids in expected]
    # T5 puts its EOS itself, and one is enough.
    t5 = T5Tokenizer.from_pretrained(shared_data / "tokenizers" / "t5")
    assert ids_of(encode_texts(t5, TEXT)) == [t5(text)["input_ids"] for text in TEXT]
    assert encode_texts(t5, TEXT).tokens[-1] == t5.eos_token_id
    assert ids_of(encode_texts(t5, TEXT, end_of_document=False)) == [t5(text)["input_ids"][:-1] for text in TEXT]


def test_a_vocabulary_of_few_characters() -> None:
    backend = Tokenizer(models.WordLevel({"0": 0, "1": 1, "<s>": 2, "</s>": 3}))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    digits = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert ids_of(encode_texts(digits, ["0", "1"])) == [[2, 0, 3], [2, 1, 3]]


def test_a_tokenizer_without_eos_is_refused() -> None:
    tokenizer = byte_level(eos_token=None)
    with pytest.raises(ArgumentError, match=r"no EOS token, by which .* Set tokenizer.eos_token, or pass end_of_doc"):
        encode_texts(tokenizer, TEXT)
    assert len(encode_texts(tokenizer, TEXT, end_of_document=False)) == 3
    with pytest.raises(ArgumentError, match="The data has no documents"):
        encode_texts(byte_level(), [])


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows so narrow that texts of tests have many."""
    monkeypatch.setattr(windows, "_OWN", 500)
    monkeypatch.setattr(windows, "_CONTEXT", 150)
    monkeypatch.setattr(encoding, "_BATCH", 1700)


def mixed_text(seed: int, length: int) -> str:
    """Words, blank lines, long runs of one character, scripts without spaces, emoji."""
    choose = random.Random(seed)
    parts = [*" ".join(TEXT).split(), "\n\n", "  ", "naïve", "東京都に住んでいます", "🙂🙃", "1234567", "<|endoftext|>"]
    text = ""
    while len(text) < length:
        text += choose.choice(parts) + choose.choice(["", " ", " ", "\n", ", "])
    return text


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["small", "gpt2", "llama", "t5"])
def test_windows_give_what_the_whole_text_gives(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer: Any = byte_level()
    if name != "small":
        data: Path = request.getfixturevalue("shared_data")
        classes: dict[str, Any] = {
            "gpt2": (GPT2Tokenizer, "tokenizers/gpt2"),
            "llama": (LlamaTokenizer, "models/stories260k"),
            "t5": (T5Tokenizer, "tokenizers/t5"),
        }
        tokenizer = classes[name][0].from_pretrained(data / classes[name][1])
    texts = [mixed_text(seed, length) for seed, length in enumerate((10, 4000, 1001, 15_000, 500, 3000))]
    spliced = [splices for text in texts if (splices := len(list(windows.windows_of([text]))) - 1)]
    assert sum(spliced) > 30
    found: list[int | None] = []
    original = windows._splice
    monkeypatch.setattr(windows, "_splice", lambda *given: found.append(original(*given)) or found[-1])
    bos = [tokenizer.bos_token_id] if name == "llama" else []
    expected = [[*bos, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    assert ids_of(encode_texts(tokenizer, texts, end_of_document=False)) == expected
    # Not by encoding the texts as a whole, which is for texts that cannot be spliced.
    assert len(found) == sum(spliced)
    assert None not in found


@pytest.mark.usefixtures("narrow")
def test_a_text_that_cannot_be_spliced_is_encoded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = []
    monkeypatch.setattr(windows, "_splice", lambda *_: failed.append(1))
    tokenizer = byte_level()
    texts = [mixed_text(1, 3000), mixed_text(2, 100), mixed_text(3, 2000)]
    assert ids_of(encode_texts(tokenizer, texts)) == [[*tokenizer(text)["input_ids"], 0] for text in texts]
    assert len(failed) > 5


@pytest.mark.usefixtures("narrow")
@given(st.text("a\n ", min_size=600, max_size=1500))
def test_windows_of_little_but_repetition(text: str) -> None:
    tokenizer = byte_level()
    assert ids_of(encode_texts(tokenizer, [text])) == [[*tokenizer(text)["input_ids"], 0]]


def test_ids_of_are_those_of_a_call() -> None:
    texts = [*TEXT, "", "<|im_start|>user"]
    tokenizer = byte_level()
    assert tokenizer.ids_of(texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokenizer.split_special_tokens = True
    assert tokenizer.ids_of(texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert len(tokenizer.ids_of(texts)[-1]) > 2


def test_lines_and_eos_are_where_to_cut() -> None:
    tokenizer = byte_level()
    breaks = line_breaks(tokenizer)
    chosen = {tokenizer.decode([token]) for token in np.flatnonzero(breaks)}
    assert "\n" in chosen
    assert all(text.endswith("\n") for text in chosen - {"<|endoftext|>"})
    assert breaks[tokenizer.eos_token_id]
    assert len(breaks) == len(tokenizer)
