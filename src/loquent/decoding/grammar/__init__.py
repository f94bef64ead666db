"""Grammars that an output must follow: JSON schemas, regular expressions, Lark grammars and lists of choices.

What is allowed next is computed by `llguidance` (Moskal et al., https://github.com/guidance-ai/llguidance), an
optional library that is imported here alone; the rule that acts on scores is `decoding.rules.grammar`.
"""

from __future__ import annotations

from typing import Any

from loquent.decoding.grammar.compiled import CompiledGrammar, Completion, State
from loquent.decoding.grammar.specification import FIELDS, specification
from loquent.decoding.grammar.vocabulary import open_vocabulary
from loquent.decoding.surroundings import Surroundings, as_tuple
from loquent.errors import ArgumentError

__all__ = ["FIELDS", "CompiledGrammar", "Completion", "State", "grammar_of", "specification"]


def grammar_of(config: Any, around: Surroundings) -> CompiledGrammar | None:
    """The grammar that a generation config asks for, compiled for the tokenizer at hand; None where it asks for none.

    It is compiled once for a tokenizer and kept while that lives, among the last few.

    Raises:
        ArgumentError: the fields contradict one another or cannot be compiled, or there is no tokenizer.
        MissingExtraError: `llguidance` is not installed.
    """
    spec = specification(config)
    if spec is None:
        return None
    if around.tokenizer is None:
        raise ArgumentError(f"{spec.argument} is about text. Pass tokenizer=, whose tokens it is matched with.")
    ends = tuple(token for token in as_tuple(config.eos_token_id) if 0 <= token < around.vocabulary)
    return open_vocabulary(around.tokenizer, around.vocabulary, ends).compile(spec)
