"""The default model's tokenizer: a byte-level BPE learned from its own text, and the files that describe it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
_LINE_BREAK = "\u010a"  # as byte-level vocabularies write it
# Those after the first two are not trained: they are there for whoever tunes the model into something else.
SPECIAL_TOKENS = (END_OF_TEXT, PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|spare0|>", "<|spare1|>")


def learn_vocabulary(documents: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer of `size` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, positions: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "model_max_length": positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def encode_documents(tokenizer: Tokenizer, documents: Sequence[str]) -> NDArray[np.uint16]:
    """All documents end to end, an end-of-text token before the first and after each."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [np.array([end], np.uint16)]
    for encoding in tokenizer.encode_batch(list(documents)):
        ids.append(np.array([*encoding.ids, end], np.uint16))
    return np.concatenate(ids)


def paragraph_breaks(tokenizer: Tokenizer) -> list[bool]:
    """For each id, whether a paragraph starts after it."""
    pieces = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    return [piece == END_OF_TEXT or _LINE_BREAK in piece for piece in pieces]
