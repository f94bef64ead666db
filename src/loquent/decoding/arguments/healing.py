"""Token healing: which of a prompt's last tokens is taken back, and what may take its place; the rule is another's.

A prompt that ends within a word or a mark ("http:") ends in a token (":") that the text would never have had there
("://"). The last token is taken back, and made again among those that begin with its text.

Source: https://github.com/ahmed-moubtahij/TokenHealer
"""

from __future__ import annotations

from collections.abc import Sequence

from loquent.config.generation import GenerationConfig
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.decoding.rules.healing import Heal
from loquent.errors import ArgumentError
from loquent.tokenization.token_bytes import token_bytes


def healing_of(config: GenerationConfig, prompt: Sequence[int], around: Surroundings) -> Heal | None:
    """How a prompt's last token is made again; None where that is not asked for, or no other token could come of it.

    A prompt's only token stays, since nothing would be left to read, and so does a special token, which has no text.

    Raises:
        ArgumentError: there is no tokenizer to say what the tokens' texts are.
    """
    if not config.token_healing:
        return None
    if around.tokenizer is None:
        raise ArgumentError("token_healing=True compares the texts of tokens. Pass tokenizer=, the model's own.")
    known, last = token_bytes(around.tokenizer), prompt[-1]
    if len(prompt) < 2 or last >= len(known.texts) or last in known.special or not known.texts[last]:
        return None
    tokens = tuple(token for token in known.extending(known.texts[last]) if token < around.vocabulary)
    return Heal(last, tokens) if len(tokens) > 1 else None
