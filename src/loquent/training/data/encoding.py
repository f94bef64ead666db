"""Texts to examples, in batches and in windows, whatever a text's length; it reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loquent.errors import ArgumentError
from loquent.training.data.examples import Bools, Collector, Examples
from loquent.training.data.windows import Ids, Splicer, Window, windows_of

# Characters that are encoded together: enough for all cores, little enough for the library's 170 bytes for each.
_BATCH = 1 << 21


@dataclass(frozen=True)
class Ends:
    """The ids that stand before and behind each document."""

    before: list[int]
    behind: list[int]

    @classmethod
    def of(cls, tokenizer: Any, end_of_document: bool = True) -> Ends:
        """What the tokenizer itself puts around a text, and EOS behind it, or no end at all.

        Raises:
            ArgumentError: the tokenizer has no EOS token.
        """
        inside = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        at = next(at for at in range(len(whole)) if whole[at : at + len(inside)] == inside)
        before, behind = whole[:at], whole[at + len(inside) :]
        if not end_of_document:
            return cls(before, [])
        if tokenizer.eos_token_id is None:
            raise ArgumentError(
                "The tokenizer has no EOS token, by which a model learns where a text ends. Set tokenizer.eos_token, "
                "or pass end_of_document=False."
            )
        return cls(before, behind if tokenizer.eos_token_id in behind else [*behind, tokenizer.eos_token_id])

    def around(self, ids: Ids) -> Ids:
        """A document's ids with those in front and behind."""
        return np.concatenate([np.array(self.before, np.int64), ids, np.array(self.behind, np.int64)])


def encode_texts(tokenizer: Any, texts: Iterable[str], *, end_of_document: bool = True) -> Examples:
    """Texts as documents whose every token counts, each with BOS in front where the tokenizer puts one, and EOS behind.

    Special tokens that a text spells out are read as the tokenizer reads them (`split_special_tokens`).

    Args:
        tokenizer: a tokenizer of `loquent.tokenization`.
        texts: documents; taken one by one, never held together.
        end_of_document: False leaves EOS away.

    Raises:
        ArgumentError: the tokenizer has no EOS token, or there are no texts.
    """
    ends = Ends.of(tokenizer, end_of_document)
    collector = Collector(vocabulary_size(tokenizer))
    splicer = Splicer(lambda text: _encodings(tokenizer, [text])[0])
    for batch in _batches(windows_of(texts)):
        for window, encoding in zip(batch, _encodings(tokenizer, [window.text for window in batch])):
            ids = splicer.add(window, encoding)
            if ids is not None:
                collector.add(ends.around(ids))
    return collector.examples()


def vocabulary_size(tokenizer: Any) -> int:
    """One more than the largest id."""
    return max(tokenizer.get_vocab().values(), default=0) + 1


def line_breaks(tokenizer: Any) -> Bools:
    """(vocabulary,) the ids behind which a text is best cut: those that end a line, and EOS."""
    from loquent.tokenization.token_bytes import token_bytes

    breaks = np.array([text.endswith(b"\n") for text in token_bytes(tokenizer).texts])
    if tokenizer.eos_token_id is not None:
        breaks[tokenizer.eos_token_id] = True
    return breaks


def _encodings(tokenizer: Any, texts: Sequence[str]) -> Sequence[Any]:
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    encodings: Sequence[Any] = encoded.encodings
    return encodings


def _batches(windows: Iterator[Window]) -> Iterator[list[Window]]:
    """Windows in groups of about as many characters as are encoded together."""
    batch: list[Window] = []
    size = 0
    for window in windows:
        batch.append(window)
        size += len(window.text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
