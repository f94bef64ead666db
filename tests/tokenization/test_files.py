"""A tokenizer's folder: every format is read, saving keeps everything, and what is broken is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from loquent.errors import ArgumentError, CheckpointError, HubError, LoquentError, TemplateError, TokenizerError
from loquent.tokenization import (
    AutoTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    T5Tokenizer,
    TokenizersBackend,
)

TEXT = "the cat <pad> sat <u>"


@pytest.fixture
def folder(byte_level_files: Path, tmp_path: Path) -> Path:
    """A copy of a folder with vocab.json and merges.txt, to be changed."""
    return Path(shutil.copytree(byte_level_files, tmp_path / "model"))


def write(folder: Path, name: str, value: Any) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def test_everything_survives_saving(small: GPT2Tokenizer, tmp_path: Path) -> None:
    small.add_special_tokens({"pad_token": AddedToken("<pad>", lstrip=True), "additional_special_tokens": ["<u>"]})
    small.add_tokens([AddedToken("xyz", rstrip=True, single_word=True)])
    small.padding_side, small.truncation_side, small.model_max_length = "left", "left", 77
    small.clean_up_tokenization_spaces = True
    small.chat_template = {"default": "{{ 1 }}\n\n", "tool_use": "é"}
    written = small.save_pretrained(tmp_path)
    assert all(isinstance(path, str) and Path(path).is_file() for path in written)
    assert {Path(path).name for path in written} == {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "chat_template.jinja", "tool_use.jinja"),
    }
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is GPT2Tokenizer
    for name in (
        *("special_tokens_map", "padding_side", "truncation_side", "model_max_length", "chat_template"),
        *("clean_up_tokenization_spaces", "model_input_names", "all_special_ids", "add_prefix_space"),
    ):
        assert getattr(again, name) == getattr(small, name), name
    assert repr(again.added_tokens_decoder) == repr(small.added_tokens_decoder)
    assert again(TEXT).input_ids == small(TEXT).input_ids
    assert again.get_vocab() == small.get_vocab()


@pytest.mark.parametrize("legacy", [True, False])
def test_saving_one_format(small: GPT2Tokenizer, tmp_path: Path, legacy: bool) -> None:
    names = {Path(path).name for path in small.save_pretrained(tmp_path, legacy_format=legacy)}
    assert ("tokenizer.json" in names, "merges.txt" in names) == (not legacy, legacy)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT).input_ids == small(TEXT).input_ids


def test_saving_with_a_prefix_and_templates_in_the_config(small: GPT2Tokenizer, tmp_path: Path) -> None:
    small.chat_template = {"default": "a", "b": "c"}
    names = {Path(path).name for path in small.save_pretrained(tmp_path, filename_prefix="v2", save_jinja_files=False)}
    assert {"v2-tokenizer.json", "v2-vocab.json", "v2-tokenizer_config.json"} <= names
    config = json.loads((tmp_path / "v2-tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == [{"name": "default", "template": "a"}, {"name": "b", "template": "c"}]


def test_saving_where_it_cannot_be(small: GPT2Tokenizer, folder: Path) -> None:
    with pytest.raises(ArgumentError, match="is a file"):
        small.save_pretrained(folder / "vocab.json")
    with pytest.raises(ArgumentError, match="push_to_hub=True"):
        small.save_pretrained(folder, commit_message="x")
    generic = PreTrainedTokenizerFast(tokenizer_object=small.backend_tokenizer)
    with pytest.raises(ArgumentError, match="legacy_format=True"):
        generic.save_pretrained(folder, legacy_format=True)
    small.chat_template = {"../../escape": "x"}
    with pytest.raises(ArgumentError, match="escape"):
        small.save_pretrained(folder)


def test_saving_at_home(small: GPT2Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    small.save_pretrained("~/saved")
    assert small.save_vocabulary("~/saved")[0] == str(tmp_path / "saved/vocab.json")
    assert GPT2Tokenizer.from_pretrained("~/saved")("one").input_ids == small("one").input_ids


def test_fields_that_are_not_known_are_kept(small: GPT2Tokenizer, folder: Path) -> None:
    small.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    write(folder, "tokenizer_config.json", {**config, "invented": [1, 2], "tokenizer_class": "OtherTokenizer"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (saved["invented"], saved["tokenizer_class"]) == ([1, 2], "OtherTokenizer")


def test_options_come_before_the_folder(small: GPT2Tokenizer, folder: Path) -> None:
    small.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, pad_token="<p>", padding_side="left", use_fast=False)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.padding_side) == ("<p>", len(small), "left")
    with pytest.raises(ArgumentError, match="pad_tokn"):
        AutoTokenizer.from_pretrained(folder, pad_tokn="<p>")


def test_older_files_give_tokens_their_roles(folder: Path) -> None:
    write(folder, "special_tokens_map.json", {"pad_token": {"content": "<pad>", "lstrip": True, "rstrip": False,
          "normalized": False, "single_word": False}, "additional_special_tokens": ["<u>"]})  # fmt: skip
    size = len(GPT2Tokenizer.from_pretrained(folder))
    write(folder, "added_tokens.json", {"<pad>": size, "<u>": size + 1, "word": size + 2})
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    assert tokenizer.pad_token == "<pad>"
    assert tokenizer.additional_special_tokens == ["<u>"]
    assert tokenizer("a word<pad>").input_ids[-2:] != tokenizer("a word").input_ids[-2:]
    flags = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    assert (flags["<u>"], flags["word"]) == (True, False)


@pytest.mark.parametrize("form", ["jinja", "json", "config", "list"])
def test_templates_of_every_form(folder: Path, form: str) -> None:
    config: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "chat_template": "old"}
    if form == "jinja":
        write(folder, "chat_template.jinja", "T\n")
        write(folder, "additional_chat_templates/rag.jinja", "R")
    elif form == "json":
        write(folder, "chat_template.json", {"chat_template": "T"})
    elif form == "config":
        config["chat_template"] = "T"
    else:
        config["chat_template"] = [{"name": "default", "template": "T"}, {"name": "rag", "template": "R"}]
    write(folder, "tokenizer_config.json", config)
    expected = {
        "jinja": {"default": "T\n", "rag": "R"},
        "json": "T",
        "config": "T",
        "list": {"default": "T", "rag": "R"},
    }
    assert AutoTokenizer.from_pretrained(folder).chat_template == expected[form]


@pytest.mark.parametrize(
    ("config", "model", "chosen"),
    [
        ({"tokenizer_class": "GPT2TokenizerFast"}, {}, GPT2Tokenizer),
        ({"tokenizer_class": "TokenizersBackend"}, {}, TokenizersBackend),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "gpt2"}, PreTrainedTokenizerFast),
        ({"tokenizer_class": "NewTokenizer"}, {"model_type": "gpt2"}, PreTrainedTokenizerFast),
        ({}, {"model_type": "gpt_neo"}, GPT2Tokenizer),
        ({}, {"tokenizer_class": "GPTNeoXTokenizer", "model_type": "gpt2"}, GPTNeoXTokenizer),
        ({}, {"model_type": "gpt_neox"}, GPTNeoXTokenizer),
        ({}, {"model_type": "doge"}, PreTrainedTokenizerFast),
        ({}, {}, PreTrainedTokenizerFast),
    ],
    ids=str,
)
def test_the_class_of_a_folder(
    small: GPT2Tokenizer, folder: Path, config: dict[str, Any], model: dict[str, Any], chosen: type
) -> None:
    small.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", config)
    write(folder, "config.json", model)
    assert type(AutoTokenizer.from_pretrained(folder)) is chosen


def test_the_class_of_bare_vocabulary_files(folder: Path) -> None:
    assert type(AutoTokenizer.from_pretrained(folder)) is GPT2Tokenizer
    assert type(AutoTokenizer.from_pretrained(folder, tokenizer_type="gpt_neox")) is GPTNeoXTokenizer
    write(folder, "tokenizer_config.json", {"tokenizer_class": "NewTokenizer"})
    with pytest.raises(TokenizerError, match="NewTokenizer is not known"):
        AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ArgumentError, match="tokenizer_type='x'"):
        AutoTokenizer.from_pretrained(folder, tokenizer_type="x")


def test_code_of_a_folder_is_never_run(small: GPT2Tokenizer, folder: Path) -> None:
    write(folder, "tokenization_own.py", "raise SystemExit('the code of the folder was run')")
    mapped = {"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}}
    write(folder, "tokenizer_config.json", {"tokenizer_class": "OwnTokenizer", **mapped})
    for trust in (True, False):
        with pytest.raises(TokenizerError, match="never runs code"):
            AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    small.backend_tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"PreTrainedTokenizerFast\.from_pretrained"):
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert PreTrainedTokenizerFast.from_pretrained(folder)("one").input_ids == small("one").input_ids
    write(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", **mapped})
    assert AutoTokenizer.from_pretrained(folder, trust_remote_code=True)("one").input_ids == small("one").input_ids


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "not json": ({"tokenizer.json": "{"}, "tokenizer.json"),
    "a pointer": ({"tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9"}, "LFS"),
    "another json": ({"tokenizer.json": {"model": 5}}, "tokenizer.json"),
    "merges": ({"merges.txt": "#version: 0.2\na b c\n"}, "a b c"),
    "merges of other tokens": ({"merges.txt": "#version: 0.2\nnothing like\n"}, "fit together"),
    "vocabulary": ({"vocab.json": ["a"]}, "vocab.json"),
    "vocabulary ids": ({"vocab.json": {"a": "b"}}, "vocab.json"),
    "vocabulary cut short": ({"vocab.json": '{"a": 1, "b'}, "vocab.json"),
    "config": ({"tokenizer_config.json": "[1]"}, "tokenizer_config.json"),
    "config deep": ({"tokenizer_config.json": "[" * 100_000}, "tokenizer_config.json"),
    "added tokens": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "a"}}}},
        "added_tokens_decoder",
    ),
    "added token": ({"tokenizer_config.json": {"added_tokens_decoder": {"1": {"lstrip": True}}}}, "content"),
    "special token": ({"tokenizer_config.json": {"eos_token": 5}}, "eos_token=5"),
    "special tokens": ({"tokenizer_config.json": {"additional_special_tokens": "a"}}, "additional_special_tokens='a'"),
    "side": ({"tokenizer_config.json": {"padding_side": "up"}}, "padding_side='up'"),
    "length": ({"tokenizer_config.json": {"model_max_length": "long"}}, "model_max_length='long'"),
    "length of no number": ({"tokenizer_config.json": '{"model_max_length": NaN}'}, "model_max_length=nan"),
    "deep lists": ({"tokenizer_config.json": '{"errors": ' + "[" * 600 + "]" * 600 + "}"}, "recursion"),
    "older special tokens": (
        {"special_tokens_map.json": {"additional_special_tokens": 1}, "tokenizer_config.json": {}},
        "cannot be used",
    ),
    "older added tokens": ({"added_tokens.json": {"a": "x"}}, "cannot be used"),
    "template": ({"tokenizer_config.json": {"chat_template": [1]}}, "chat_template"),
    "template bytes": ({"chat_template.jinja": "T"}, "chat_template.jinja"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told(folder: Path, name: str) -> None:
    files, message = BROKEN[name]
    for file, content in files.items():
        write(folder, file, content)
    if name == "template bytes":
        (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises((TokenizerError, ArgumentError, TemplateError), match=message.replace("[", r"\[")):
        GPT2Tokenizer.from_pretrained(folder)


def test_a_folder_cannot_ask_for_any_amount_of_memory(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="extra_ids=1000000000"):
        T5Tokenizer(folder / "vocab.json", extra_ids=10**9)
    for name in ("chat_template.jinja", "vocab.json"):
        with (folder / name).open("ab") as file:
            file.truncate(1 << 40)
        with pytest.raises(TokenizerError, match=rf"{name} is larger than"):
            GPT2Tokenizer.from_pretrained(folder)
        (folder / name).unlink()


def test_missing_files_are_told(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokenizerError, match=r"vocab\.json and merges\.txt; it holds nothing"):
        GPT2Tokenizer.from_pretrained(tmp_path / "empty")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json") as told:
        AutoTokenizer.from_pretrained(tmp_path / "empty")
    assert str(tmp_path / "empty") in str(told.value)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model; it holds merges\.txt, vocab\.json"):
        LlamaTokenizer.from_pretrained(folder)
    with pytest.raises((HubError, CheckpointError)):
        GPT2Tokenizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match="merges_file"):
        GPT2Tokenizer(folder / "vocab.json")
    with pytest.raises(TokenizerError, match="not a file"):
        GPT2Tokenizer(folder / "vocab.json", folder / "none.txt")
    with pytest.raises(TokenizerError, match="tokenizer_file="):
        PreTrainedTokenizerFast()
    with pytest.raises(ArgumentError, match="vocab_file"):
        GPT2Tokenizer("a", "b", "c")


def test_links_out_of_the_folder_are_not_followed(folder: Path) -> None:
    with pytest.raises(LoquentError):
        AutoTokenizer.from_pretrained(folder, subfolder="../..")


def test_from_a_hub_and_back(stand_in_hub: Any, small: GPT2Tokenizer, tmp_path: Path) -> None:
    small.chat_template = {"default": "{{ 1 }}", "rag": "R"}
    small.push_to_hub("me/tok", token=stand_in_hub.token, commit_message="First")
    assert stand_in_hub.repositories["me/tok"].messages[-1] == "First"
    tokenizer = AutoTokenizer.from_pretrained("me/tok")
    assert type(tokenizer) is GPT2Tokenizer
    assert tokenizer.chat_template == small.chat_template
    assert tokenizer(TEXT).input_ids == small(TEXT).input_ids
    asked = len(stand_in_hub.requests)
    assert AutoTokenizer.from_pretrained("me/tok", local_files_only=True)(TEXT).input_ids == small(TEXT).input_ids
    assert len(stand_in_hub.requests) == asked
    tokenizer.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="me/other", token=stand_in_hub.token)
    assert "tokenizer.json" in stand_in_hub.repositories["me/other"].files("main")
    with pytest.raises(HubError):
        AutoTokenizer.from_pretrained("me/nothing")
