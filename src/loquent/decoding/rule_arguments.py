"""From a generation config to the rules that it asks for; they are checked against the model's vocabulary here."""

from __future__ import annotations

from collections.abc import Iterator

from loquent.config.generation import GenerationConfig
from loquent.decoding import rules
from loquent.decoding.grammar import grammar_of
from loquent.decoding.surroundings import Surroundings, as_tuple
from loquent.errors import ArgumentError


def rules_of(
    config: GenerationConfig, prompt: int, new_tokens: int, sampled: bool, around: Surroundings
) -> Iterator[rules.Rule]:
    """The rules that a config asks for; those that shape a distribution act where it is sampled from."""
    ends = as_tuple(config.eos_token_id)
    if config.repetition_penalty != 1:
        yield rules.RepetitionPenalty(config.repetition_penalty)
    if config.no_repeat_ngram_size:
        yield rules.NoRepeatNgrams(config.no_repeat_ngram_size)
    words = tuple(tuple(word) for word in config.bad_words_ids or () if len(word) != 1 or word[0] not in ends)
    if words:
        yield rules.BadWords(_within(words, "bad_words_ids", around))
    known_ends = tuple(token for token in ends if 0 <= token < around.vocabulary)
    if known_ends and (config.min_length > prompt or config.min_new_tokens):
        yield rules.MinLength(known_ends, config.min_length, config.min_new_tokens or 0)
    yield from _given_tokens(config, prompt, new_tokens, around)
    if around.processors:
        yield rules.Custom(around.processors)
    grammar = grammar_of(config, around)
    if grammar is not None:
        yield rules.Grammar(grammar)
    if sampled:
        yield from _warpers(config)


def _given_tokens(config: GenerationConfig, prompt: int, new_tokens: int, around: Surroundings) -> Iterator[rules.Rule]:
    if config.forced_bos_token_id is not None:
        [[token]] = _within(((config.forced_bos_token_id,),), "forced_bos_token_id", around)
        yield rules.ForcedBegin(token)
    if config.forced_eos_token_id is not None:
        [tokens] = _within((as_tuple(config.forced_eos_token_id),), "forced_eos_token_id", around)
        yield rules.ForcedEnd(tokens, prompt + new_tokens)
    if config.suppress_tokens:
        [tokens] = _within((tuple(config.suppress_tokens),), "suppress_tokens", around)
        yield rules.Suppress(tokens)
    if config.begin_suppress_tokens:
        index = int(prompt == 1 and config.forced_bos_token_id is not None)
        [tokens] = _within((tuple(config.begin_suppress_tokens),), "begin_suppress_tokens", around)
        yield rules.SuppressAtBegin(tokens, index)


def _warpers(config: GenerationConfig) -> Iterator[rules.Rule]:
    if config.temperature != 1:
        yield rules.Temperature(config.temperature)
    if config.top_k:
        yield rules.TopK(config.top_k)
    if config.top_p < 1:
        yield rules.TopP(config.top_p)
    if config.min_p is not None:
        yield rules.MinP(config.min_p)


def _within(words: tuple[tuple[int, ...], ...], argument: str, around: Surroundings) -> tuple[tuple[int, ...], ...]:
    if not all(words):
        raise ArgumentError(f"{argument} has an empty list of tokens. Leave it out.")
    bad = next((token for word in words for token in word if not 0 <= token < around.vocabulary), None)
    if bad is not None:
        raise ArgumentError(f"{argument} names the token {bad}; the vocabulary is 0 to {around.vocabulary - 1}.")
    return words
