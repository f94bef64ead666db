"""A small tokenizer for the tests of training data, made on the spot."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from loquent.tokenization import PreTrainedTokenizerFast

TEXT = [
    "the cat sat on the mat and the dog ran to the cat, and the cat ran to the dog",
    "Hello there, how are you? I'm fine, don't worry. It's café time!",
    "user assistant system\nthe user said hello to the assistant\n\n",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@cache
def trained() -> str:
    """A byte-level BPE as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    text: str = tokenizer.to_str()
    return text


def byte_level(trim_offsets: bool = False, **options: object) -> PreTrainedTokenizerFast:
    """A tokenizer with `<|endoftext|>` as EOS, unless options say otherwise."""
    backend = Tokenizer.from_str(trained())
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{"eos_token": SPECIAL[0], **options})
