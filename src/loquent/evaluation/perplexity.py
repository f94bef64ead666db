"""Perplexity of texts of any length, through the engine: sliding windows, many in a run; it reads no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from loquent.errors import ArgumentError
from loquent.evaluation.documents import Document, document_of
from loquent.evaluation.windows import sizes, windows
from loquent.generation import engine_of
from loquent.text import TextModel
from loquent.text.targets import Row, target_scores

Progress = Callable[[int, int], None]
"""Is told how many tokens are scored, and of how many."""


@dataclass(frozen=True)
class Perplexity:
    """What a model makes of texts; they add up."""

    log_probability: float
    """Of all scored tokens together, a natural logarithm."""
    tokens: int
    """How many were scored."""
    bytes: int
    """Of the scored text in UTF-8."""
    words: int
    """Of the scored text, as white space separates them."""
    documents: int
    """With something to score."""

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability of a token."""
        return _exp(-self.log_probability / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers; infinite where nothing but ends was scored."""
        return -self.log_probability / math.log(2) / self.bytes if self.bytes else math.inf

    @property
    def word_perplexity(self) -> float:
        """The exponential of the mean negative log-probability of a word; infinite where there is none."""
        return _exp(-self.log_probability / self.words) if self.words else math.inf

    def __add__(self, other: Perplexity) -> Perplexity:
        return Perplexity(
            self.log_probability + other.log_probability,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.words + other.words,
            self.documents + other.documents,
        )


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf  # where a float ends


def perplexity(
    model: TextModel,
    texts: str | Iterable[str],
    *,
    length: int | None = None,
    stride: int | None = None,
    count_ends: bool = False,
    progress: Progress | None = None,
    **store: Any,
) -> Perplexity:
    """How well a model predicts texts, each of them a document of its own.

    Each token is scored once, behind the BOS token and what stands before it in the document, as far as a window
    reaches. For a model without BOS the first token of each document is only read.

    Args:
        model: what `loquent.load` gives.
        texts: a document or several, of any length; those without a token to score are left out.
        length: how many tokens the model reads at once at most; None: as many as it has positions, up to 2048.
        stride: by how many tokens a window moves on, 1 to `length`; None: half of `length`. Smaller ones leave more
            context to each token, and take longer: 1 gives each token all the context that there can be.
        count_ends: whether the end token behind each document is scored too.
        progress: is called with the number of tokens scored so far, and of all.
        store: how keys and values are kept, as in `generate`: `cache_implementation`, `cache_config`, `offload_folder`.

    Raises:
        ArgumentError: there is nothing to score, or an argument cannot work.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    wrong = next((text for text in listed if not isinstance(text, str)), None)
    if wrong is not None:
        raise ArgumentError(f"texts has a {type(wrong).__name__}, {wrong!r:.80}. Pass a text, or several.")
    documents = [document_of(model.tokenizer, text, count_ends) for text in listed]
    return measured(model, documents, length=length, stride=stride, progress=progress, **store)


def measured(
    model: TextModel,
    documents: Sequence[Document],
    *,
    length: int | None = None,
    stride: int | None = None,
    progress: Progress | None = None,
    **store: Any,
) -> Perplexity:
    """`perplexity` of documents whose tokens are there already, with what of them counts.

    Raises:
        ArgumentError: there is nothing to score, or an argument cannot work.
    """
    length, stride = sizes(engine_of(model.model).backend.max_positions, length, stride)
    documents = [document for document in documents if document.scored]
    if not documents:
        raise ArgumentError("texts has no token that follows another. Pass some text.")
    cut = [(document, window) for document in documents for window in windows(len(document.tokens), length, stride)]
    cut = [(document, window) for document, window in cut if document.counts[window.scored : window.stop].any()]
    rows: Iterator[Row] = (
        Row(document.tokens[window.first : window.stop].tolist(), window.stop - window.scored)
        for document, window in cut
    )
    total, done, gained = sum(document.scored for document in documents), 0, [0.0] * len(cut)
    with closing(target_scores(model.model, rows, store)) as scored:
        for number, found in scored:
            document, window = cut[number]
            counts = document.counts[window.scored : window.stop]
            gained[number] = math.fsum(found.log_probabilities[counts])
            done += int(counts.sum())
            if progress is not None:
                progress(done, total)
    return Perplexity(
        math.fsum(gained),
        total,
        sum(document.bytes for document in documents),
        sum(document.words for document in documents),
        len(documents),
    )
