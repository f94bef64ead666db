"""The arguments of a tokenizer's call: shapes, lengths, sides, columns; compared with transformers where it helps."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

from loquent.errors import ArgumentError, TokenizerError
from loquent.tokenization import BatchEncoding, GPT2Tokenizer, LlamaTokenizer

BATCH = ["the cat sat on the mat", "one", "", "Hello there, how are you?"]


@pytest.fixture
def theirs(byte_level_files: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    files = [str(byte_level_files / name) for name in ("vocab.json", "merges.txt")]
    return transformers.GPT2TokenizerFast(*files, pad_token="<|endoftext|>")


def plain(encoding: Any) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in encoding.items()}


LENGTHS = [
    {"padding": True},
    {"padding": "longest", "pad_to_multiple_of": 8},
    {"padding": "max_length", "max_length": 12},
    {"padding": "max_length", "max_length": 4},
    {"padding": True, "padding_side": "left"},
    {"truncation": True, "max_length": 3},
    {"truncation": "longest_first", "max_length": 3, "padding": True, "return_length": True},
    {"truncation": True, "max_length": 6, "stride": 2, "return_overflowing_tokens": True},
    {"truncation": True, "max_length": 4, "stride": 1, "return_overflowing_tokens": True, "padding": "max_length"},
    {"max_length": 3},
    {"return_attention_mask": False},
    {"return_token_type_ids": True},
    {"add_special_tokens": False, "return_special_tokens_mask": True, "return_offsets_mapping": True},
]


@pytest.mark.parametrize("options", LENGTHS, ids=str)
@pytest.mark.parametrize("text", [BATCH, BATCH[0], list(zip(BATCH, reversed(BATCH))), [BATCH[0]]], ids=str)
def test_lengths_and_columns(small: GPT2Tokenizer, theirs: Any, text: Any, options: dict[str, Any]) -> None:
    small.pad_token = small.eos_token
    assert plain(small(text, **options)) == plain(theirs(text, **options))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
def test_truncating_pairs(small: GPT2Tokenizer, theirs: Any, side: str, strategy: str) -> None:
    small.truncation_side = theirs.truncation_side = side
    first, second = "the cat sat on the mat and the dog", "one two three four five six seven"
    for length in (6, 9, 11):
        call: dict[str, Any] = {"truncation": strategy, "max_length": length, "return_offsets_mapping": True}
        try:
            expected = plain(theirs(first, second, **call))
        except Exception:
            with pytest.raises(TokenizerError, match="could not be encoded"):
                small(first, second, **call)
        else:
            assert plain(small(first, second, **call)) == expected


def test_words(byte_level_files: Path) -> None:
    files = (byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    with pytest.raises(ArgumentError, match="add_prefix_space=True"):
        GPT2Tokenizer(*files)(["the", "cat"], is_split_into_words=True)
    tokenizer = GPT2Tokenizer(*files, add_prefix_space=True)
    encoded = tokenizer(["the", "unknowable", "cat"], is_split_into_words=True)
    assert tokenizer.decode(encoded.input_ids) == " the unknowable cat"
    assert sorted(set(encoded.word_ids())) == [0, 1, 2]
    batch = tokenizer([["the", "cat"], ["one"]], is_split_into_words=True)
    assert tokenizer.batch_decode(batch.input_ids) == [" the cat", " one"]


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(small: GPT2Tokenizer, kind: str) -> None:
    small.pad_token = small.eos_token
    library = pytest.importorskip({"np": "numpy", "pt": "torch"}[kind])
    encoded = small(BATCH, padding=True, return_tensors=kind)
    assert isinstance(encoded.input_ids, np.ndarray if kind == "np" else library.Tensor)
    assert encoded.input_ids.dtype == library.int64
    assert encoded["input_ids"].tolist() == small(BATCH, padding=True)["input_ids"]
    assert small("one", return_tensors=kind).input_ids.shape == (1, len(small.encode("one")))
    assert small("", return_tensors=kind).input_ids.dtype == library.int64
    assert small.encode("one", return_tensors=kind).shape[0] == 1
    assert small.batch_decode(encoded.input_ids, skip_special_tokens=True) == BATCH
    assert small.decode(encoded.input_ids[0], skip_special_tokens=True) == BATCH[0]
    assert small.convert_ids_to_tokens(encoded.input_ids[1]) == small.convert_ids_to_tokens(
        encoded.input_ids[1].tolist()
    )


def test_ragged_rows_cannot_be_tensors(small: GPT2Tokenizer) -> None:
    for kind in ("np", "pt"):
        with pytest.raises(ArgumentError, match="padding=True"):
            small(BATCH, return_tensors=kind)
    with pytest.raises(ArgumentError, match='"pt"'):
        small("one", return_tensors="tf")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": None}, "text=None"),
        ({"text": 5}, "must be a string"),
        ({"text": ["a", 5]}, "5"),
        ({"text": [["a", "b", "c"]]}, "is_split_into_words=True"),
        ({"text": "a", "padding": "longes"}, "padding='longes'"),
        ({"text": "a", "truncation": "always"}, "truncation='always'"),
        ({"text": "a", "padding": True}, "pad_token"),
        ({"text": "a", "max_length": -1}, "max_length=-1"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, "text_pair 1"),
        ({"text": "a b c", "truncation": True, "max_length": 2, "stride": 2}, "stride=2"),
    ],
    ids=str,
)
def test_wrong_arguments_say_what_to_do(small: GPT2Tokenizer, call: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        small(**call)


def test_unknown_arguments_are_refused(small: GPT2Tokenizer, byte_level_files: Path) -> None:
    with pytest.raises(TypeError):
        small("a", pading=True)
    with pytest.raises(ArgumentError, match="Did you mean 'padding_side'"):
        GPT2Tokenizer(byte_level_files / "vocab.json", byte_level_files / "merges.txt", pading_side="left")
    with pytest.raises(ArgumentError, match="extra_special_tokens"):
        GPT2Tokenizer(byte_level_files / "vocab.json", byte_level_files / "merges.txt", image_token="<image>")


def test_labels_from_targets(small: GPT2Tokenizer) -> None:
    encoded = small("the cat", text_target="one two")
    assert encoded.labels == small("one two").input_ids
    assert small(text_target="one two").input_ids == small("one two").input_ids


def test_padding_what_was_encoded_before(small: GPT2Tokenizer, theirs: Any) -> None:
    small.pad_token = small.eos_token
    rows = [small(text) for text in BATCH]
    for options in (
        {},
        {"padding": "max_length", "max_length": 11},
        {"pad_to_multiple_of": 8},
        {"padding_side": "left"},
    ):
        expected = plain(theirs.pad([theirs(text) for text in BATCH], **options))
        assert plain(small.pad(rows, **options)) == expected
        assert plain(small.pad({"input_ids": [row.input_ids for row in rows]}, **options)) == expected
    assert small.pad(rows, return_tensors="np").input_ids.shape == (4, max(len(row.input_ids) for row in rows))
    arrays = small.pad([{"input_ids": np.array(row.input_ids)} for row in rows])
    assert isinstance(arrays.input_ids, np.ndarray)
    assert plain(small.pad(small("one"), padding="max_length", max_length=6))["attention_mask"][-1] == 0
    with pytest.raises(ArgumentError, match="input_ids"):
        small.pad([{"labels": [1]}])


def test_a_call_leaves_no_trace(small: GPT2Tokenizer) -> None:
    small.pad_token = small.eos_token
    before = small.backend_tokenizer.to_str()
    small(BATCH, padding=True, truncation=True, max_length=4, split_special_tokens=True)
    with pytest.raises(ArgumentError):
        small("a", padding=True, padding_side="up")
    assert small.backend_tokenizer.truncation is None
    assert small.backend_tokenizer.padding is None
    assert small.backend_tokenizer.to_str() == before


def test_a_refused_call_leaves_no_trace(small: GPT2Tokenizer) -> None:
    small.pad_token = small.eos_token
    whole = small("the cat sat on the mat").input_ids
    with pytest.raises(ArgumentError, match="padding_side='up'"):
        small("the cat", truncation=True, max_length=1, padding=True, padding_side="up")
    assert small("the cat sat on the mat").input_ids == whole


def test_threads_do_not_mix_their_lengths(small: GPT2Tokenizer) -> None:
    small.pad_token = small.eos_token
    text = "the cat sat on the mat " * 20

    def call(length: int) -> bool:
        row = small(text, truncation=True, max_length=length, padding="max_length")
        return len(row.input_ids) == length and small.decode(row.input_ids[:3]) == small.decode(
            small(text).input_ids[:3]
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, [3 + index % 40 for index in range(400)]))


def test_special_tokens(small: GPT2Tokenizer) -> None:
    assert small.bos_token == small.eos_token == small.unk_token == "<|endoftext|>"
    assert small.pad_token is None
    assert small.pad_token_id is None
    small.pad_token_id = small.eos_token_id
    assert small.pad_token == "<|endoftext|>"
    size = len(small)
    assert small.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<u>", "<a>"]}) == 3
    assert (small.pad_token_id, len(small), small.vocab_size) == (size, size + 3, size)
    assert small.additional_special_tokens_ids == [size + 1, size + 2]
    assert (
        small.add_special_tokens({"additional_special_tokens": ["<z>"]}, replace_additional_special_tokens=False) == 1
    )
    assert small.all_special_tokens == ["<|endoftext|>", "<pad>", "<u>", "<a>", "<z>"]
    assert small.decode(small("the<u> cat<pad>").input_ids, skip_special_tokens=True) == "the cat"
    known = small.convert_tokens_to_ids("the")
    assert small.add_tokens(["catdog", AddedToken("xyz", lstrip=True), "the"]) == 3
    assert small.convert_tokens_to_ids("the") == known
    assert small.add_tokens("catdog") == 0
    assert small.tokenize("a catdog") == ["a", "Ġ", "catdog"]
    assert small.get_added_vocab()["<pad>"] == size
    small.pad_token = None
    assert "pad_token" not in small.special_tokens_map
    for wrong in ({"pad": "<pad>"}, {"pad_token": 5}):
        with pytest.raises(ArgumentError):
            small.add_special_tokens(wrong)
    with pytest.raises(ArgumentError, match="pad_token_id"):
        small.pad_token = 5  # type: ignore[assignment]


def test_decoding_always_replaces_broken_characters(byte_level_files: Path) -> None:
    files = (byte_level_files / "vocab.json", byte_level_files / "merges.txt")
    assert GPT2Tokenizer(*files, errors="replace").decode([0]) == "<|endoftext|>"
    with pytest.raises(ArgumentError, match="errors='strict'"):
        GPT2Tokenizer(*files, errors="strict")


def test_roles_of_a_model(byte_level_files: Path) -> None:
    tokenizer = GPT2Tokenizer(
        byte_level_files / "vocab.json",
        byte_level_files / "merges.txt",
        extra_special_tokens={"image_token": "<image>"},
    )
    assert tokenizer.image_token == "<image>"
    assert tokenizer.image_token_id == len(tokenizer) - 1
    assert tokenizer.decode(tokenizer("a<image>b").input_ids, skip_special_tokens=True) == "ab"
    tokenizer.image_token = "<|endoftext|>"
    assert tokenizer.image_token_id == 0
    with pytest.raises(AttributeError, match="sound_token"):
        _ = tokenizer.sound_token


def test_decoding_what_is_not_an_id(small: GPT2Tokenizer) -> None:
    assert small.decode(5) == small.decode([5]) == small.decode(np.int64(5)) == small.decode([np.int32(5)])
    assert small.decode([]) == ""
    for wrong, message in (
        ([-100], "-100"),
        ([[1, 2]], "batch_decode"),
        (["a"], "'a'"),
        ([1.5], "1.5"),
        (None, "None"),
    ):
        with pytest.raises(ArgumentError, match=message):
            small.decode(wrong)


def test_bos_and_eos_can_be_switched(small: GPT2Tokenizer) -> None:
    ids = small("one").input_ids
    small.add_eos_token = True
    assert small("one").input_ids == [*ids, small.eos_token_id]
    small.add_bos_token = True
    assert small("one").input_ids == [small.bos_token_id, *ids, small.eos_token_id]
    assert small.build_inputs_with_special_tokens(ids) == small("one").input_ids
    assert small.num_special_tokens_to_add() == 2
    small.bos_token = None
    with pytest.raises(ArgumentError, match="add_bos_token=True"):
        small.update_post_processor()


def test_copies_and_pickles(small: GPT2Tokenizer) -> None:
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        other.add_tokens("brandnew")
        assert other("the cat").input_ids == small("the cat").input_ids
        assert len(other) == len(small) + 1


def test_batch_encoding(small: GPT2Tokenizer) -> None:
    encoded = small(["the cat", "one two three"], return_offsets_mapping=True)
    assert {**encoded}.keys() == {"input_ids", "attention_mask", "offset_mapping"}
    assert encoded.attention_mask == encoded["attention_mask"]
    for row, text in enumerate(["the cat", "one two three"]):
        assert encoded.tokens(row) == encoded.encodings[row].tokens
        for token, (start, end) in enumerate(encoded.offset_mapping[row]):
            assert encoded.token_to_chars(row, token) == (start, end)
            assert all(encoded.char_to_token(row, char) == token for char in range(start, end))
        spans = {encoded.word_to_chars(row, word) for word in set(encoded.word_ids(row))}
        assert "".join(text[start:end] for start, end in sorted(spans)) == text
    assert encoded.char_to_token(0) == 0
    assert encoded.sequence_ids(0) == [0] * len(encoded.input_ids[0])
    assert encoded[0].ids == encoded.input_ids[0]
    again = pickle.loads(pickle.dumps(encoded))
    assert dict(again) == dict(encoded)
    with pytest.raises(AttributeError, match="labels"):
        _ = encoded.labels
    by_hand = BatchEncoding({"input_ids": [1, 2]}, tensor_type="np", prepend_batch_axis=True)
    assert by_hand.input_ids.tolist() == [[1, 2]]
    with pytest.raises(ArgumentError, match="encodings"):
        by_hand.tokens()


def test_moving_to_a_device(small: GPT2Tokenizer) -> None:
    torch = pytest.importorskip("torch")
    encoded = small("the cat", return_tensors="pt")
    assert encoded.to("meta").input_ids.device.type == "meta"
    assert small("the cat", return_tensors="pt").to(torch.device("cpu")).input_ids.device.type == "cpu"
    with pytest.raises(ArgumentError, match="device"):
        encoded.to(torch.float16)


def test_fast_names_are_the_same_classes() -> None:
    import loquent.tokenization as names

    for family in ("GPT2", "GPTNeoX", "Llama", "CodeLlama", "T5", "Whisper", "OpenAIGPT"):
        assert getattr(names, f"{family}TokenizerFast") is getattr(names, f"{family}Tokenizer")
        assert f"{family}TokenizerFast" in names.__all__
    assert names.PreTrainedTokenizerFast is names.PreTrainedTokenizerBase is names.PreTrainedTokenizer
    assert issubclass(names.TokenizersBackend, names.PreTrainedTokenizer)


def test_a_refused_flag_leaves_the_tokenizer_as_it_was(shared_data: Path) -> None:
    tokenizer = LlamaTokenizer.from_pretrained(shared_data / "models" / "stories260k")
    before = tokenizer("A cat")["input_ids"]
    eos, tokenizer.eos_token = tokenizer.eos_token, None
    with pytest.raises(ArgumentError, match="eos_token"):
        tokenizer.add_eos_token = True
    assert not tokenizer.add_eos_token
    tokenizer.eos_token = eos
    assert tokenizer("A cat")["input_ids"] == before
