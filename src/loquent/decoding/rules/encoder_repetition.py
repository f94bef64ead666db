"""Encoder repetition penalty: a repetition penalty reversed, on the prompt's tokens, so that the text keeps to it.

The "encoder input" of a decoder-only model is its prompt, as in transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array
from loquent.decoding.rules.base import Context, Rule
from loquent.decoding.rules.repetition import penalized


@dataclass(frozen=True)
class EncoderRepetitionPenalty(Rule):
    """Above 1 encourages the prompt's tokens, below 1 (and above 0) discourages them."""

    penalty: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[EncoderRepetitionPenalty], contexts: Sequence[Context]) -> Array:
        prompts = [context.tokens[: context.prompt] for context in contexts]
        return penalized(scores, [1 / rule.penalty for rule in rules], prompts)
