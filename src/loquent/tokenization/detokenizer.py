"""From ids to text as they are generated: every piece is final; it computes what `decode` would, a token at a time.

A decoder is a chain of steps (https://huggingface.co/docs/tokenizers/api/decoders). Each step here takes tokens as they
come and gives out what no later token can change: an unfinished character, a run of bytes that may yet turn out not to
be text, a space that clean-up may yet remove wait inside the step. The work per token does not depend on what went
before.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import decoders

from loquent.tokenization.cleanup import REPLACEMENTS

if TYPE_CHECKING:
    from loquent.tokenization.vocabulary import Vocabulary


_BYTE_TOKEN = re.compile(r"<0x(\+?[0-9a-fA-F]{1,2})(?<=<0x..)>")


class Step:
    """One step of a decoder: tokens in, tokens out."""

    def push(self, token: str) -> Iterable[str]:
        """What is final after one more token."""
        return (token,)

    def flush(self) -> Iterable[str]:
        """The rest, at the end of the text."""
        return ()


class EachToken(Step):
    """A step that treats every token alike."""

    def __init__(self, change: Callable[[str], str]) -> None:
        self.change = change

    def push(self, token: str) -> Iterable[str]:
        return (self.change(token),)


class ByteLevel(Step):
    """Tokens written in GPT-2's printable bytes; an unfinished character waits."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> Iterable[str]:
        return (self.decoder.decode(level_bytes(token)),)

    def flush(self) -> Iterable[str]:
        return (self.decoder.decode(b"", final=True),)


class ByteFallback(Step):
    """`<0xE4>` tokens: a run of them is a text if all of it is UTF-8, and one replacement each if not.

    So no byte of a run is final before the run ends.
    """

    def __init__(self) -> None:
        self.run = bytearray()

    def push(self, token: str) -> Iterable[str]:
        byte = byte_of(token)
        if byte is not None:
            self.run.append(byte)
            return ()
        return (*self.flush(), token)

    def flush(self) -> Iterable[str]:
        run, self.run = bytes(self.run), bytearray()
        try:
            return (run.decode(),) if run else ()
        except UnicodeDecodeError:
            return ("\N{REPLACEMENT CHARACTER}" * len(run),)


class Metaspace(Step):
    """SentencePiece's visible space; the first token loses its own."""

    def __init__(self, replacement: str, drops_first: bool) -> None:
        self.replacement, self.first = replacement, drops_first

    def push(self, token: str) -> Iterable[str]:
        space = "" if self.first else " "
        self.first = False
        return (token.replace(self.replacement, space),)


class EndOfWord(Step):
    """`</w>` becomes a space, except in the last token: what depends on that waits for the next one."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.if_last = self.if_not = ""

    def push(self, token: str) -> Iterable[str]:
        before = self.if_not
        last, inner = token.replace(self.suffix, ""), token.replace(self.suffix, " ")
        same = next((at for at, pair in enumerate(zip(last, inner)) if pair[0] != pair[1]), min(len(last), len(inner)))
        self.if_last, self.if_not = last[same:], inner[same:]
        return (before + last[:same],)

    def flush(self) -> Iterable[str]:
        return (self.if_last,)


class WordPiece(Step):
    """`##` joins a token to the one before; others are words."""

    def __init__(self, change: Callable[[list[str]], str]) -> None:
        self.change, self.first = change, True

    def push(self, token: str) -> Iterable[str]:
        if self.first:
            self.first = False
            return (self.change([token]),)
        # The library treats the first token apart: a neutral one stands in for it.
        return (self.change(["a", token])[1:],)


class StripStart(Step):
    """Up to `count` characters at the beginning of the text."""

    def __init__(self, content: str, count: int) -> None:
        self.content, self.left = content, count

    def push(self, token: str) -> Iterable[str]:
        while self.left and token:
            if token[0] != self.content:
                self.left = 0
                break
            token, self.left = token[1:], self.left - 1
        return (token,)


class Replace(Step):
    """`str.replace` over a text that comes in pieces: what may be the beginning of the pattern waits."""

    def __init__(self, pattern: str, replacement: str) -> None:
        self.pattern, self.replacement = pattern, replacement
        self.waiting = ""

    def push(self, token: str) -> Iterable[str]:
        pieces = (self.waiting + token).split(self.pattern)
        rest = pieces[-1]
        longest = min(len(self.pattern) - 1, len(rest))
        keep = next((size for size in range(longest, 0, -1) if self.pattern.startswith(rest[-size:])), 0)
        self.waiting = rest[len(rest) - keep :]
        pieces[-1] = rest[: len(rest) - keep]
        return (self.replacement.join(pieces),)

    def flush(self) -> Iterable[str]:
        rest, self.waiting = self.waiting, ""
        return (rest,)


class AtTheEnd(Step):
    """A decoder that is not known here: its text is final only when all tokens are there."""

    def __init__(self, decode: Callable[[list[str]], str]) -> None:
        self.decode = decode
        self.tokens: list[str] = []

    def push(self, token: str) -> Iterable[str]:
        self.tokens.append(token)
        return ()

    def flush(self) -> Iterable[str]:
        return (self.decode(self.tokens),)


class IncrementalDetokenizer:
    """Text from ids that arrive in any portions.

    What `push` returns is final and never ends in a part of a character; all of it and `flush()` together are
    `tokenizer.decode(all_ids)`, for every tokenizer and all ids.

    Args:
        tokenizer: whose ids they are.
        skip_special_tokens: leave special tokens out.
        clean_up_tokenization_spaces: remove spaces before punctuation; None for the tokenizer's own setting.
    """

    def __init__(
        self,
        tokenizer: Vocabulary,
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> None:
        backend = tokenizer.backend_tokenizer
        self._token_of = backend.id_to_token
        self._skipped = frozenset(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special and skip_special_tokens
        )
        self._steps = steps_of(backend.decoder)
        clean = clean_up_tokenization_spaces
        if tokenizer.clean_up_tokenization_spaces if clean is None else clean:
            self._steps += [Replace(pattern, replacement) for pattern, replacement in REPLACEMENTS]

    def push(self, ids: Sequence[int]) -> str:
        """The text that is final after these ids; often it is empty."""
        out: list[str] = []
        for index in ids:
            token = self._token_of(int(index))
            if token is not None and token not in self._skipped:
                out += self._through([token], 0)
        return "".join(out)

    def flush(self) -> str:
        """The rest, with a replacement character for an unfinished one. Call it once, at the end."""
        out: list[str] = []
        for position, step in enumerate(self._steps):
            out += self._through(list(step.flush()), position + 1)
        return "".join(out)

    def _through(self, tokens: list[str], start: int) -> list[str]:
        for step in self._steps[start:]:
            tokens = [made for token in tokens for made in step.push(token)]
        return tokens


def steps_of(decoder: Any) -> list[Step]:
    """The steps that do what a decoder of the `tokenizers` library does."""
    if decoder is None:
        return [_Joined()]
    described = json.loads(decoder.__getstate__())
    parts = described["decoders"] if described["type"] == "Sequence" else [described]
    steps: list[Step] = []
    fused = False
    for part in parts:
        step = _step(part, fused)
        if step is None:
            return [AtTheEnd(decoder.decode)]
        steps.append(step)
        fused = fused or part["type"] in ("Fuse", "ByteLevel")
    return steps


class _Joined(Step):
    """Without a decoder, tokens are joined by spaces."""

    separator = ""

    def push(self, token: str) -> Iterable[str]:
        before, self.separator = self.separator, " "
        return (before + token,)


def _step(part: Mapping[str, Any], fused: bool) -> Step | None:
    """One part of a decoder; `fused` once what comes is pieces of one text, and no longer tokens."""
    kind = part["type"]
    if kind == "Replace":
        return _replace(part, fused)
    if kind == "Strip":
        return _strip(part, fused)
    if kind == "Fuse":
        return Step()
    if fused:
        return None
    if kind == "ByteLevel":
        return ByteLevel()
    if kind == "ByteFallback":
        return ByteFallback()
    if kind == "Metaspace":
        return Metaspace(part["replacement"], part.get("prepend_scheme", "always") != "never")
    if kind == "BPEDecoder":
        return EndOfWord(part["suffix"])
    if kind == "WordPiece":
        return WordPiece(decoders.WordPiece(prefix=part["prefix"], cleanup=part["cleanup"]).decode)
    return None


def _replace(part: Mapping[str, Any], fused: bool) -> Step | None:
    pattern, content = part["pattern"].get("String"), part["content"]
    if not pattern:
        return None
    return Replace(pattern, content) if fused else EachToken(lambda token: token.replace(pattern, content))


def _strip(part: Mapping[str, Any], fused: bool) -> Step | None:
    if not fused:
        strip = decoders.Strip(content=part["content"], left=part["start"], right=part["stop"])
        return EachToken(lambda token: strip.decode([token]))
    return StripStart(part["content"], part["start"]) if part["stop"] == 0 else None


def byte_of(token: str) -> int | None:
    """The byte that a token such as `<0xE4>` stands for; None for other tokens."""
    found = _BYTE_TOKEN.fullmatch(token)
    return int(found.group(1), 16) if found else None


def level_bytes(token: str) -> bytes:
    """The bytes of a token that is written in GPT-2's printable bytes; an added token's text is as it is."""
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        return token.encode()


def _printable_bytes() -> dict[str, int]:
    """GPT-2's alphabet: a printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES = _printable_bytes()
