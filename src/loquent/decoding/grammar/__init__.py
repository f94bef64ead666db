"""Grammars that an output must follow: JSON schemas, regular expressions, Lark grammars and lists of choices.

What is allowed next is computed by `llguidance` (Moskal et al., https://github.com/guidance-ai/llguidance), an
optional library that is imported here alone; the rule that acts on scores is `decoding.rules.grammar`.
"""

from loquent.decoding.grammar.compiled import CompiledGrammar, Completion, State
from loquent.decoding.grammar.specification import FIELDS, specification
from loquent.decoding.grammar.vocabulary import open_vocabulary

__all__ = ["FIELDS", "CompiledGrammar", "Completion", "State", "open_vocabulary", "specification"]
