"""Documents as a model reads them, with what of them counts; files and models are elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loquent.errors import ArgumentError
from loquent.tokenization import PreTrainedTokenizer


@dataclass(frozen=True, eq=False)
class Document:
    """Tokens of which the first is only read, and how much text those stand for that count."""

    tokens: NDArray[np.int32]  # (n,)
    counts: NDArray[np.bool_]  # (n,), which of them are scored; never the first
    bytes: int  # in UTF-8, of the text that counts
    words: int  # of it: what white space separates

    @property
    def scored(self) -> int:
        """How many tokens count."""
        return int(self.counts.sum())


def document_of(tokenizer: PreTrainedTokenizer, text: str, count_end: bool = False) -> Document:
    """A text with the BOS token before it, which is read and not scored.

    For a model without BOS the first token of the text is not scored, and its bytes do not count.

    Args:
        tokenizer: the model's.
        text: it may be empty, or too short for anything to be scored.
        count_end: whether the end token follows the text and is scored; it has no bytes.

    Raises:
        ArgumentError: the end is to be counted, and the model has no end token.
    """
    if count_end and tokenizer.eos_token_id is None:
        raise ArgumentError("count_ends=True needs an end token, and the model has none. Leave it out.")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    bos = tokenizer.bos_token_id
    if bos is None:
        text = text[offsets[0][1] :] if offsets else text
    else:
        ids = [bos, *ids]
    if count_end:
        ids = [*ids, tokenizer.eos_token_id]
    tokens = np.asarray(ids, np.int32)
    counts = np.ones(len(tokens), np.bool_)
    counts[:1] = False
    return Document(tokens, counts, len(text.encode()), len(text.split()))
