"""Texts and conversations to examples, batch by batch, whatever their length; it reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from loquent.errors import ArgumentError, TokenizerError
from loquent.training.data.dialogues import Dialogue
from loquent.training.data.examples import Bools, Collector, Examples
from loquent.training.data.formats import DialogueFormat, Spans, Written
from loquent.training.data.windows import Ids, Splicer, Window, windows_of

# Characters that are encoded together: enough for all cores, little enough for what the library takes for each, which
# is some 80 bytes, and several times that where places are asked for.
_BATCH = 1 << 21
_BATCH_WITH_PLACES = 1 << 19
T = TypeVar("T", Window, Written)


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
        text = next(text for text in ("a", *tokenizer.get_vocab()) if _takes(tokenizer, text))
        encoded = tokenizer(text)
        ids = encoded["input_ids"]
        # None for what was added around the text.
        own = [at for at, sequence in enumerate(encoded.sequence_ids()) if sequence is not None]
        before, behind = ids[: own[0]], ids[own[-1] + 1 :]
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
    splicer = Splicer(lambda text: _ids(tokenizer, [text])[0])
    for batch in _batches(windows_of(texts), _BATCH):
        read = _ids(tokenizer, [text for window in batch for text in (window.text, window.shared)])
        for window, ids, shared in zip(batch, read[0::2], read[1::2]):
            document = splicer.add(window, ids, shared)
            if document is not None:
                collector.add(ends.around(document))
    return collector.examples()


def encode_dialogues(tokenizer: Any, dialogues: Iterable[Dialogue], written_as: DialogueFormat) -> Examples:
    """Conversations as documents, in which the loss counts what the format says.

    Nothing is put around what the format writes. A token counts where one of its characters does.

    Args:
        tokenizer: a tokenizer of `loquent.tokenization`.
        dialogues: taken one by one, never held together.
        written_as: `Templated.of(tokenizer)` or `JoinedByEos.of(tokenizer)`.

    Raises:
        DataError, TemplateError: a conversation cannot be written so.
        ArgumentError: there are no conversations.
    """
    collector = Collector(vocabulary_size(tokenizer))
    for batch in _batches((written_as.write(dialogue) for dialogue in dialogues), _BATCH_WITH_PLACES):
        encoded = tokenizer(
            [written.text for written in batch], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for written, ids, offsets in zip(batch, encoded["input_ids"], encoded["offset_mapping"]):
            collector.add(ids, _covered(np.array(offsets, np.int64).reshape(-1, 2), written.counted))
    return collector.examples()


def _covered(offsets: Ids, spans: Spans) -> Bools:
    """Which tokens have a character within one of the spans, or lie between two that have one in the same span.

    Args:
        offsets: (tokens, 2) where each token begins and ends in the text.
        spans: ascending, (start, end) in the text.
    """
    starts, ends = np.maximum.accumulate(offsets, axis=0).T
    bounds = np.array([span for span in spans if span[0] < span[1]], np.int64).reshape(-1, 2)
    first = np.searchsorted(ends, bounds[:, 0], side="right")
    stop = np.searchsorted(starts, bounds[:, 1], side="left")
    changes = np.zeros(len(offsets) + 1, np.int64)
    np.add.at(changes, first, 1)
    np.add.at(changes, np.maximum(first, stop), -1)
    return np.cumsum(changes[:-1]) > 0


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


def _takes(tokenizer: Any, text: str) -> bool:
    """Whether the text has ids; some vocabularies know a few characters only."""
    try:
        return bool(tokenizer.ids_of([text])[0])
    except TokenizerError:
        return False


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    return [np.array(ids, np.int64) for ids in tokenizer.ids_of(texts)]


def _batches(parts: Iterable[T], characters: int) -> Iterator[list[T]]:
    """Texts in groups of about as many characters as are encoded together."""
    batch: list[T] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
