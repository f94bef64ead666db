"""A tokenizer as llguidance sees it: the bytes of every token of a model's vocabulary, and which tokens end a text."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

from loquent.decoding.grammar.compiled import CompiledGrammar, short
from loquent.decoding.grammar.specification import Specification
from loquent.errors import ArgumentError, MissingExtraError
from loquent.tokenization.token_bytes import TokenBytes, token_bytes

_KEPT = 32
# A state of the lexer takes one or two kilobytes; grammars that people write have hundreds.
_LIMITS = {"max_lexer_states": 50_000, "verbose_errors": False}


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError("llguidance", "structured", "Structured output") from error
    return llguidance


class _Tokens:
    """What `llguidance.TokenizerWrapper` asks for."""

    def __init__(self, known: TokenBytes, vocabulary: int, ends: tuple[int, ...]) -> None:
        # Ids that the model has and the tokenizer has not are no tokens; the last one is no model's, and ends texts
        # where no token of the model's does.
        self.tokens = [*known.texts[:vocabulary], *[b""] * (vocabulary - len(known.texts)), b"<end>"]
        self.special_token_ids = sorted({*(token for token in known.special if token < vocabulary), *ends, vocabulary})
        self.eos_token_id = ends[0] if ends else vocabulary
        self.bos_token_id = None

    def __call__(self, text: Any) -> list[int]:
        """Tokens of a text that a grammar forces, which is never asked for: see `no_forcing`."""
        return []


class Vocabulary:
    """The tokens of a model, ready to be matched with grammars, and the grammars compiled for them."""

    def __init__(self, known: TokenBytes, vocabulary: int, ends: tuple[int, ...]) -> None:
        library = _library()
        tokens = _Tokens(known, vocabulary, ends)
        self.known, self._size, self._has_end = known, vocabulary, bool(ends)
        self._limits = library.LLParserLimits(**_LIMITS)
        self._matcher = library.LLMatcher
        self._tokens = library.LLTokenizer(
            library.TokenizerWrapper(tokens), eos_token=list(ends) or tokens.eos_token_id
        )
        self._compiled: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: Specification) -> CompiledGrammar:
        """The grammar, from what is remembered where it can be.

        Raises:
            ArgumentError: it is no grammar, allows nothing, or takes more than the limits.
        """
        with self._lock:
            known = self._compiled.pop(spec.lark, None) or self._compile(spec)
            self._compiled[spec.lark] = known
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return known

    def _compile(self, spec: Specification) -> CompiledGrammar:
        matcher = self._matcher(self._tokens, spec.lark, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise ArgumentError(f"{spec.argument} cannot be compiled. llguidance says: {short(matcher.get_error())}")
        return CompiledGrammar(spec.argument, matcher, self._size, self._has_end)


_open: weakref.WeakKeyDictionary[Any, dict[tuple[int, tuple[int, ...]], Vocabulary]] = weakref.WeakKeyDictionary()


def open_vocabulary(tokenizer: Any, vocabulary: int, ends: tuple[int, ...]) -> Vocabulary:
    """The vocabulary of a model with `vocabulary` ids, of which `ends` end a text; made once for a tokenizer.

    Raises:
        ArgumentError: the tokenizer's tokens have no text of their own.
        MissingExtraError: `llguidance` is not installed.
    """
    known, key = token_bytes(tokenizer), (vocabulary, ends)
    made = _open.setdefault(tokenizer, {})
    if key not in made or made[key].known is not known:  # tokens have been added since
        made[key] = Vocabulary(known, vocabulary, ends)
    return made[key]
