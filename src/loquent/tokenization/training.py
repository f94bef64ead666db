"""Trains a byte-level BPE tokenizer on texts; reading the texts from files, and writing the folder, is its caller's.

Paper: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", over bytes as in Radford et
al. 2019, section 2.2: the pair of tokens that stands together most often becomes a token, again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from loquent.errors import ArgumentError
from loquent.tokenization.arguments import UNLIMITED
from loquent.tokenization.backend import library_errors
from loquent.tokenization.named import TokenizersBackend
from loquent.tokenization.tokenizer import PreTrainedTokenizer

END_OF_TEXT = "<|endoftext|>"
BYTES = 256


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    bos_token: str | None = END_OF_TEXT,
    eos_token: str | None = END_OF_TEXT,
    pad_token: str | None = None,
    unk_token: str | None = None,
    min_frequency: int = 2,
    split_digits: bool = False,
    add_prefix_space: bool = False,
    add_bos_token: bool = False,
    chat_template: str | None = None,
    model_max_length: int | None = None,
    on_read: Callable[[int, int], None] | None = None,
) -> PreTrainedTokenizer:
    """A byte-level BPE tokenizer learned from texts: the same one whenever the texts are the same.

    Ids are those of the special tokens in their order, of the 256 bytes, and of the merges from the first to the last.
    There are fewer than `vocab_size` where no pair is left that stands in the texts `min_frequency` times.

    Args:
        texts: documents, which are read once, one after another; no merge goes from one to the next.
        vocab_size: how many tokens, special ones and bytes included.
        special_tokens: texts that are a token each, and that no merge makes. A role's token that is not among them
            comes behind them.
        bos_token, eos_token, pad_token, unk_token: which token begins, ends, pads; None for none. Nothing is unknown
            to bytes: `unk_token` is for programs that ask for one.
        min_frequency: how often a pair must stand in the texts to become a token.
        split_digits: make every digit a token of its own.
        add_prefix_space: read a text as if a space were before it, so that its first word is as others are.
        add_bos_token: put `bos_token` before every text, as a model is trained that may begin one.
        chat_template: how a conversation is written, in Jinja; the template says itself what begins one.
        model_max_length: what the tokenizer says of the model's positions; None for nothing.
        on_read: told after each document how many documents and characters there were.

    Raises:
        ArgumentError: an argument cannot work, or the texts are empty.
        TemplateError: the chat template is not valid.
    """
    roles: dict[str, Any] = {
        "bos_token": bos_token,
        "eos_token": eos_token,
        "pad_token": pad_token,
        "unk_token": unk_token,
    }
    special = _special(special_tokens, [token for token in roles.values() if token is not None])
    _check(vocab_size, len(special), min_frequency, model_max_length, split_digits and add_prefix_space)
    if add_bos_token and bos_token is None:
        raise ArgumentError("add_bos_token=True puts bos_token before texts, and bos_token=None is none. Name one.")
    if chat_template is not None:
        _check_template(chat_template)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = _pieces(split_digits, add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with library_errors("The tokenizer could not be trained"):
        backend.train_from_iterator(_checked(texts, on_read), trainer)
    return TokenizersBackend(
        tokenizer_object=backend,
        additional_special_tokens=[token for token in special if token not in roles.values()],
        add_prefix_space=add_prefix_space,
        add_bos_token=add_bos_token,
        chat_template=chat_template,
        model_max_length=UNLIMITED if model_max_length is None else model_max_length,
        **roles,
    )


def _pieces(split_digits: bool, add_prefix_space: bool) -> pre_tokenizers.PreTokenizer:
    """Cuts a text into words, numbers and marks, which no merge crosses."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, words]) if split_digits else words


def _special(listed: Sequence[str], roles: Sequence[str]) -> list[str]:
    if isinstance(listed, str):
        raise ArgumentError(f"special_tokens={listed!r} must be a list of tokens, such as [{listed!r}].")
    twice = next((token for place, token in enumerate(listed) if token in listed[:place]), None)
    if twice is not None:
        raise ArgumentError(f"special_tokens names {twice!r} twice. Name each token once.")
    tokens = list(dict.fromkeys([*listed, *roles]))
    if "" in tokens:
        raise ArgumentError("special_tokens: '' is no token. Give it a text, or None where a role has no token.")
    return tokens


def _check(size: int, special: int, min_frequency: int, length: int | None, digits_after_space: bool) -> None:
    if size < BYTES + special:
        raise ArgumentError(
            f"vocab_size={size} has no room for {BYTES} bytes and {special} special tokens. Pass at least "
            f"{BYTES + special}; 8192 suits a small model of one language."
        )
    if min_frequency < 1:
        raise ArgumentError(f"min_frequency={min_frequency} must be at least 1.")
    if length is not None and length < 1:
        raise ArgumentError(f"model_max_length={length} must be at least 1, or None for no limit.")
    if digits_after_space:
        # The library would put the space before each piece, and the text could not be told from its tokens any more.
        raise ArgumentError("split_digits=True does not go with add_prefix_space=True. Leave one of them out.")


def _check_template(source: str) -> None:
    # Jinja takes time to import, and most programs have no use for it.
    from loquent.tokenization.templates.sandbox import compiled

    compiled(source)


def _checked(texts: Iterable[str], on_read: Callable[[int, int], None] | None) -> Iterator[str]:
    if isinstance(texts, str):
        raise ArgumentError("texts must be an iterable of texts, not one text. Pass [text].")
    documents = characters = 0
    for text in texts:
        if not isinstance(text, str):
            raise ArgumentError(f"texts holds {text!r} of type {type(text).__name__}. Pass texts.")
        documents, characters = documents + 1, characters + len(text)
        if on_read is not None:
            on_read(documents, characters)
        yield text
    if not characters:
        raise ArgumentError(f"texts: {documents} documents without a character. There is nothing to learn from.")
