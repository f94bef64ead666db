"""What each token of a vocabulary adds to a text, as bytes: for constraints on text; it decodes no sequences."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loquent.errors import ArgumentError
from loquent.tokenization.detokenizer import AtTheEnd, ByteFallback, ByteLevel, Step, byte_of, level_bytes, steps_of

_NEUTRAL = "a"


@dataclass(frozen=True, eq=False)
class TokenBytes:
    """The vocabulary by id: `texts[i]` is what token i adds behind other text, empty for an id without a token.

    A token may be a part of a character, which is why these are bytes. Special tokens have the text of their name.
    """

    texts: Sequence[bytes]
    special: frozenset[int]

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        return sorted((text, token) for token, text in enumerate(self.texts) if text and token not in self.special)

    def extending(self, beginning: bytes) -> list[int]:
        """The tokens that begin with these bytes, special ones aside, in the order of their texts."""
        found, at = [], bisect_left(self._sorted, (beginning, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(beginning):
            found.append(self._sorted[at][1])
            at += 1
        return found


_known: weakref.WeakKeyDictionary[Any, tuple[int, TokenBytes]] = weakref.WeakKeyDictionary()


def token_bytes(tokenizer: Any) -> TokenBytes:
    """The bytes of a tokenizer's tokens; made once for each, and again when tokens have been added.

    Raises:
        ArgumentError: the tokenizer is not backed by the `tokenizers` library, or its decoder joins tokens in a way
            in which a token alone has no text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ArgumentError(
            f"tokenizer is a {type(tokenizer).__name__}, whose tokens cannot be listed. Pass a loquent tokenizer."
        )
    added = len(backend.get_added_tokens_decoder())  # asking for the size of the vocabulary takes 10 ms
    known = _known.get(tokenizer)
    if known is None or known[0] != added:
        known = _known[tokenizer] = added, _read(backend)
    return known[1]


def _read(backend: Any) -> TokenBytes:
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    steps = steps_of(backend.decoder)
    if any(isinstance(step, AtTheEnd) for step in steps):
        raise ArgumentError(
            "tokenizer has a decoder that joins tokens in a way of its own. Constraints on text need one of "
            "ByteLevel, ByteFallback, Metaspace, BPEDecoder, WordPiece or none."
        )
    texts = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, text in zip(vocabulary, _texts(list(vocabulary), steps)):
        texts[vocabulary[token]] = text
    added = backend.get_added_tokens_decoder()
    return TokenBytes(texts, frozenset(index for index, token in added.items() if token.special))


def _texts(tokens: Sequence[str], steps: list[Step]) -> Iterator[bytes]:
    """The bytes of each token, which goes through the decoder's steps between two neutral ones."""
    if any(isinstance(step, ByteLevel) for step in steps):
        yield from map(level_bytes, tokens)
        return
    has_bytes = any(isinstance(step, ByteFallback) for step in steps)
    _through(_NEUTRAL, steps)  # a first token may be treated apart
    neutral = _through(_NEUTRAL, steps)
    for token in tokens:
        byte = byte_of(token) if has_bytes else None
        if byte is None:
            yield (_through(token, steps) + _through(_NEUTRAL, steps)).removesuffix(neutral).encode()
        else:
            yield bytes([byte])


def _through(token: str, steps: list[Step]) -> str:
    tokens = [token]
    for step in steps:
        tokens = [made for one in tokens for made in step.push(one)]
    return "".join(tokens)
