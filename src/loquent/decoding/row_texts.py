"""The text of each row of a running generation, from the tokens that a streamer is given; it prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loquent.errors import ArgumentError
from loquent.tokenization.detokenizer import IncrementalDetokenizer

# Scripts written without spaces: every character ends a word (Unicode blocks, inclusive).
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # CJK punctuation, Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),  # full-width forms
    (0x20000, 0x3FFFF),
)


class RowTexts:
    """Turns what `generate()` puts (prompts first, then tokens) into final pieces of text, one a row and call.

    Args:
        tokenizer: decodes the tokens.
        skip_prompt: whether the first value, the prompts, is left out.
        decode_kwargs: passed to the detokenizer.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool, **decode_kwargs: Any) -> None:
        self._tokenizer = tokenizer
        self._skip_prompt = skip_prompt
        self._decode_kwargs = decode_kwargs
        self._prompts: list[list[int]] | None = None
        self._rows: list[_Row] = []

    def put(self, value: Any) -> list[str]:
        """The words that `value` completes, one piece a row: ids (rows, length) first, then (rows,) or (rows, new).

        The prompts' own words come with the first tokens, when it is known how many rows continue each prompt.

        Raises:
            ArgumentError: the number of rows changes, or is no multiple of the prompts'.
        """
        ids = value.tolist() if hasattr(value, "tolist") else list(value)
        nested = bool(ids) and isinstance(ids[0], list)
        if self._prompts is None:
            self._prompts = ids if nested else [ids]
            return []
        if not nested:
            # Several rows' next tokens come as (rows,); several tokens of a single row may come as (new,).
            ids = [ids] if len(self._rows) == 1 else [[token] for token in ids]
        pieces = self._open(len(ids))
        return [piece + row.add(new) for piece, row, new in zip(pieces, self._rows, ids, strict=True)]

    def finish(self, row: int) -> list[str]:
        """The rest of a row that has had its last token; the other rows' pieces are empty."""
        return [each.finish() if index == row else "" for index, each in enumerate(self._rows)]

    def end(self) -> list[str]:
        """The rest of every row."""
        pieces = self._open(len(self._rows) or len(self._prompts or ()))
        return [piece + row.finish() for piece, row in zip(pieces, self._rows, strict=True)]

    def is_finished(self, row: int) -> bool:
        """Whether nothing will come for this row any more."""
        return self._rows[row].finished

    def _open(self, rows: int) -> list[str]:
        """Begin `rows` rows if there are none yet; the words of each one's prompt, or nothing later on."""
        if self._rows:
            if rows != len(self._rows):
                raise ArgumentError(
                    f"value holds tokens of {rows} rows, after tokens of {len(self._rows)}. "
                    "A streamer takes one call of generate() at a time: make one for each."
                )
            return [""] * rows
        prompts = self._prompts or []
        if rows and (not prompts or rows % len(prompts)):
            raise ArgumentError(
                f"value holds tokens of {rows} rows, which {len(prompts)} prompts cannot have. Put the prompts first."
            )
        self._rows = [_Row(IncrementalDetokenizer(self._tokenizer, **self._decode_kwargs)) for _ in range(rows)]
        if self._skip_prompt:
            return [""] * rows
        if rows > 1:
            prompts = [self._without_padding(prompt) for prompt in prompts]
        return [row.add(prompts[index * len(prompts) // rows]) for index, row in enumerate(self._rows)]

    def _without_padding(self, ids: list[int]) -> list[int]:
        pad = self._tokenizer.pad_token_id
        real = [index for index, token in enumerate(ids) if token != pad]
        return ids[real[0] : real[-1] + 1] if real else []


class _Row:
    """One row's detokenizer, and the word that it has not completed yet."""

    def __init__(self, detokenizer: IncrementalDetokenizer) -> None:
        self._detokenizer = detokenizer
        self._word = ""
        self.finished = False

    def add(self, tokens: Sequence[int]) -> str:
        if self.finished:
            return ""
        words, self._word = split_words(self._word + self._detokenizer.push(tokens))
        return words

    def finish(self) -> str:
        if self.finished:
            return ""
        self.finished = True
        return self._word + self._detokenizer.flush()


def split_words(text: str) -> tuple[str, str]:
    """The complete words of `text`, with the white space after each, and the beginning of the next word."""
    for length in range(len(text), 0, -1):
        if text[length - 1].isspace() or _is_unspaced(text[length - 1]):
            return text[:length], text[length:]
    return "", text


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)
