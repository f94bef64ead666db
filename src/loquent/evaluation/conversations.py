"""Conversations as documents of which the answers count, in the formats that training has; it reads no files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loquent.evaluation.documents import Document
from loquent.evaluation.perplexity import Perplexity, Progress, measured
from loquent.text import TextModel
from loquent.tokenization import PreTrainedTokenizer
from loquent.training.data import Dialogue, DialogueFormat, Templated, encode_dialogues
from loquent.training.data.formats import Written


class _Recorder:
    """A format that remembers what it has written."""

    def __init__(self, written_as: DialogueFormat) -> None:
        self._format, self.written = written_as, list[Written]()

    def write(self, dialogue: Dialogue) -> Written:
        self.written.append(self._format.write(dialogue))
        return self.written[-1]


def conversation_documents(
    tokenizer: PreTrainedTokenizer, dialogues: Iterable[Dialogue], written_as: DialogueFormat
) -> list[Document]:
    """Conversations with what of them counts, as `loquent.training` counts it.

    Nothing is put before what the format writes, whose first token is only read. Special tokens that count, such as the
    one that ends an answer, have no bytes.

    Raises:
        DataError, TemplateError: a conversation cannot be written so.
        ArgumentError: there are none.
    """
    recorder = _Recorder(written_as)
    examples = encode_dialogues(tokenizer, dialogues, recorder)
    written = [each for each in recorder.written if each.text]
    documents = []
    for number, each in enumerate(written):
        tokens, counts = examples.document(number)
        parts = _said(each, tokenizer.all_special_tokens)
        size = sum(len(part.encode()) for part in parts)
        if each.counted and each.counted[0][0] == 0:
            size -= len(tokenizer.decode(tokens[:1].tolist(), skip_special_tokens=True).encode())
        words = sum(len(part.split()) for part in parts)
        documents.append(Document(tokens.astype(np.int32), counts, size, words))
    return documents


def _said(written: Written, special: Sequence[str]) -> list[str]:
    """The text that counts, between special tokens."""
    border = re.compile("|".join(map(re.escape, special)) or r"\Z")
    return [part for start, end in written.counted for part in border.split(written.text[start:end])]


def dialogue_perplexity(
    model: TextModel,
    dialogues: Iterable[Dialogue],
    *,
    written_as: DialogueFormat | None = None,
    length: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
    **store: Any,
) -> Perplexity:
    """How well a model predicts what is said in conversations.

    Args:
        model: what `loquent.load` gives.
        dialogues: as `loquent.training.data.read_dialogues` reads them.
        written_as: how they are written, and what of them counts; None: by the model's chat template, the answers.
        length, stride, progress, store: as for `perplexity`.

    Raises:
        TemplateError: the model has no chat template, or it fails.
        DataError: a conversation has nothing that counts.
        ArgumentError: there are no conversations, or an argument cannot work.
    """
    written_as = Templated.of(model.tokenizer) if written_as is None else written_as
    documents = conversation_documents(model.tokenizer, dialogues, written_as)
    return measured(model, documents, length=length, stride=stride, progress=progress, **store)
