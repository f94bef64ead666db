"""Texts of tokens for people to look at: nothing in them steers a terminal, hides, or changes what stands beside it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from loquent.errors import ArgumentError
from loquent.tokenization.token_bytes import token_bytes

_NAMED = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}
_SPACE = "␣"
# Controls, formats (bidirectional marks and joiners among them), surrogates, private and unassigned characters,
# and the separators that break a line.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


class TokenTexts:
    """What tokens look like; an id that the tokenizer does not have is its number.

    Args:
        tokenizer: whose ids they are.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._bytes = token_bytes(tokenizer).texts
        except ArgumentError:  # a tokenizer whose tokens have no bytes of their own
            self._bytes = ()

    def token(self, token: int) -> str:
        """One token, with marks for what could not be seen: spaces at its ends, controls, parts of characters."""
        return marked(self._raw(token), token)

    def flowing(self, token: int) -> str:
        """One token as a part of a text: as `token`, but spaces are spaces."""
        return marked(self._raw(token), token, space=" ")

    def breaks(self, token: int) -> bool:
        """Whether a token ends a line."""
        return b"\n" in self._raw(token)

    def text(self, tokens: Iterable[int]) -> str:
        """Tokens as they follow one another, on one line; white space at the ends is left out."""
        return printable(self._joined(tokens).decode("utf-8", "replace").strip())

    def run(self, tokens: Iterable[int]) -> str:
        """Tokens as they follow one another, with marks for spaces at the ends."""
        return marked(self._joined(tokens).decode("utf-8", "replace").encode(), 0)

    def _joined(self, tokens: Iterable[int]) -> bytes:
        return b"".join(map(self._raw, tokens))

    def _raw(self, token: int) -> bytes:
        if 0 <= token < len(self._bytes):
            return self._bytes[token] or f"‹{token}›".encode()
        text: str = "" if self._bytes else self._tokenizer.decode([token])
        return (text or f"‹{token}›").encode("utf-8", "surrogatepass")


def marked(raw: bytes, token: int, space: str = _SPACE) -> str:
    """The bytes of a token, as `TokenTexts.token` shows them, with `space` for those at the ends."""
    if not raw:
        return f"‹{token}›"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:  # a part of a character
        return f"‹{raw.hex(' ').upper()}›"
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    shown = printable(inner)
    if inner and unicodedata.combining(inner[0]):
        shown = f"◌{shown}"
    return space * before + shown + space * (len(text) - before - len(inner))


def printable(text: str) -> str:
    """A text with a sign in place of each character that could not be seen or would act on what shows it."""
    return "".join(map(_sign, text))


def isolated(text: str) -> str:
    """A text on a terminal, such that what is written from right to left in it leaves its neighbours where they are."""
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return f"{_ISOLATE}{text}{_END_OF_ISOLATE}"
    return text


def _sign(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character < " ":
        return chr(0x2400 + ord(character))  # the control pictures of Unicode
    category = unicodedata.category(character)
    is_odd_space = category == "Zs" and character != " "
    return f"‹U+{ord(character):04X}›" if category in _UNSEEN or is_odd_space else character
