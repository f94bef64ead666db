"""Sequence breakers of DRY: from texts to the tokens, and sequences of tokens, that write them; no rule."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from loquent.errors import ArgumentError
from loquent.tokenization.token_bytes import TokenBytes, token_bytes

Breakers = tuple[tuple[int, ...], ...]

_known: weakref.WeakKeyDictionary[TokenBytes, dict[str, Breakers]] = weakref.WeakKeyDictionary()


def breakers_of(given: Sequence[str | int], tokenizer: Any) -> Breakers:
    """Each breaker as sequences of tokens: every token that contains its text, and every one that begins it, with the
    rest behind; an integer is a token.

    Raises:
        ArgumentError: there are texts and no tokenizer, or an empty text, or the tokenizer cannot list its tokens.
    """
    texts = [breaker for breaker in given if isinstance(breaker, str)]
    if texts and tokenizer is None:
        raise ArgumentError(
            f"dry_sequence_breakers={texts!r} are texts. Pass tokenizer=, or the tokens themselves, or [] for none."
        )
    if not all(texts):
        raise ArgumentError(f"dry_sequence_breakers={list(given)!r} has an empty text. Leave it out.")
    found: dict[tuple[int, ...], None] = {(token,): None for token in given if isinstance(token, int)}
    if texts:
        vocabulary = token_bytes(tokenizer)
        known = _known.setdefault(vocabulary, {})
        for text in texts:
            if text not in known:
                known[text] = tuple(dict.fromkeys(_written(text, vocabulary, tokenizer)))
            found.update(dict.fromkeys(known[text]))
    return tuple(found)


def _written(text: str, vocabulary: TokenBytes, tokenizer: Any) -> Iterator[tuple[int, ...]]:
    wanted = text.encode()
    for token, written in enumerate(vocabulary.texts):
        if wanted in written:
            yield (token,)
    for split in range(1, len(text)):
        beginning = text[:split].encode()
        heads = [token for token, written in enumerate(vocabulary.texts) if written.endswith(beginning)]
        tail = tuple(tokenizer.encode(text[split:], add_special_tokens=False)) if heads else ()
        yield from ((head, *tail) for head in heads)
