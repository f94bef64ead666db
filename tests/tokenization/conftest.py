"""Tokenizers that the tests make themselves, so that most of them need no other data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from loquent.tokenization import GPT2Tokenizer

TEXT = [
    "the cat sat on the mat and the dog ran to the cat",
    "one two three four five six seven eight nine ten",
    "Hello there, how are you? I'm fine, don't worry. It's café time!",
    "numbers 123 456 789 and code: def f(x): return x + 1",
]


@pytest.fixture(scope="session")
def byte_level_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocab.json and merges.txt of a small byte-level BPE, and nothing else."""
    folder = tmp_path_factory.mktemp("byte_level")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(TEXT, trainer)
    trained.model.save(str(folder))
    return folder


@pytest.fixture
def small(byte_level_files: Path) -> GPT2Tokenizer:
    """A new tokenizer for each test, which may change it."""
    return GPT2Tokenizer(byte_level_files / "vocab.json", byte_level_files / "merges.txt")


@pytest.fixture(scope="session")
def strings(shared_data: Path) -> list[str]:
    """Strings in many scripts, and some that tokenizers stumble over."""
    inputs = json.loads((shared_data / "reference" / "inputs.json").read_text(encoding="utf-8"))
    return [entry["text"] for entry in inputs] + [
        "",
        " ",
        "  two  spaces  ",
        " leading",
        "trailing ",
        "\n\n x\t\ty",
        "a <s> b</s>c <|endoftext|> d<unk>",
        "<|user|>Hi<|end|>",
        "<extra_id_0> hello<extra_id_1>",
        "def f(x):\n    return x  # hi",
        "don't you're it's we've , right ?",
        "\N{REPLACEMENT CHARACTER}\x00 e\N{COMBINING ACUTE ACCENT}",
        "<0x41> <|startoftranscript|>",
    ]
