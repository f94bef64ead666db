"""How likely a model finds a text: one read of all its tokens, through the engine; nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from loquent.errors import ArgumentError, ContextLengthError
from loquent.generation import Bound, engine_of
from loquent.text.targets import Row, all_target_scores
from loquent.tokenization import PreTrainedTokenizer


@dataclass(frozen=True)
class Score:
    """What a model makes of a text, token by token; natural logarithms."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """The part of the text that each token stands for."""
    log_probabilities: tuple[float, ...]
    """Of each token, given those before it."""

    @property
    def total(self) -> float:
        """The log-probability of the whole text."""
        return math.fsum(self.log_probabilities)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability of a token."""
        return math.exp(-self.total / len(self.ids))

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of the text in UTF-8: comparable between tokenizers."""
        return -self.total / math.log(2) / len("".join(self.tokens).encode())


def score(model: Bound, tokenizer: PreTrainedTokenizer, text: str, given: str, options: Mapping[str, Any]) -> Score:
    """The score of `text` behind `given`; `options` are those of `TextModel.score` that say how keys are kept."""
    encoded = tokenizer(given + text, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos]:
        ids, offsets = [bos, *ids], [(0, 0), *offsets]
    # Tokens of the text begin where they end behind the given part, and take up characters; the first has no context.
    first = next((at for at, (start, end) in enumerate(offsets) if at and end > len(given) and end > start), len(ids))
    last = max((at for at, (start, end) in enumerate(offsets) if end > start), default=0)
    if first > last:
        raise ArgumentError(f"text={text!r} has no token that follows another. Pass a longer text, or given=...")
    ids, offsets = ids[: last + 1], offsets[: last + 1]
    found = _log_probabilities(model, ids, options)[first - 1 :]
    borders = [max(offsets[first][0], len(given)), *(end for _, end in offsets[first:])]
    whole = given + text
    pieces = [whole[start:stop] for start, stop in pairwise(borders)]
    return Score(tuple(ids[first:]), tuple(pieces), tuple(found))


def _log_probabilities(model: Bound, ids: Sequence[int], options: Mapping[str, Any]) -> list[float]:
    """The log-probability of each token but the first, given those before it."""
    positions = engine_of(model).backend.max_positions
    if positions is not None and len(ids) > positions:
        raise ContextLengthError(
            f"The text's {len(ids)} tokens exceed the model's {positions} positions. Score it in parts, or take "
            "loquent.evaluation.perplexity, which does."
        )
    [found] = all_target_scores(model, [Row(ids, len(ids) - 1)], options)
    return [float(each) for each in found.log_probabilities]
