"""From a generation config to the grammar that it asks for."""

from __future__ import annotations

from typing import Any

from loquent.decoding.arguments.surroundings import Surroundings, as_tuple
from loquent.decoding.grammar import CompiledGrammar, open_vocabulary, specification
from loquent.errors import ArgumentError


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
