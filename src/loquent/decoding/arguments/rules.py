"""From a generation config to the rules that it asks for; they are checked against the model's vocabulary here."""

from __future__ import annotations

from collections.abc import Iterator

from loquent.config.generation import GenerationConfig
from loquent.config.watermarking import SynthIDTextWatermarkingConfig, WatermarkingConfig
from loquent.decoding import rules
from loquent.decoding.arguments.dry_breakers import breakers_of
from loquent.decoding.arguments.grammar import grammar_of
from loquent.decoding.arguments.surroundings import Surroundings, as_tuple
from loquent.errors import ArgumentError

# What mirostat takes the place of. Where a model's own config has one of them, it does not act.
_TRUNCATING = frozenset(
    {
        *("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("top_h", "top_n_sigma", "xtc_probability"),
    }
)


def rules_of(
    config: GenerationConfig, prompt: int, new_tokens: int, sampled: bool, around: Surroundings
) -> Iterator[rules.Rule]:
    """The rules that a config asks for; those that shape a distribution act where it is sampled from."""
    ends = as_tuple(config.eos_token_id)
    yield from _biases(config, around)
    yield from _penalties(config, around)
    words = tuple(tuple(word) for word in config.bad_words_ids or () if len(word) != 1 or word[0] not in ends)
    if words:
        yield rules.BadWords(_within(words, "bad_words_ids", around))
    known_ends = tuple(token for token in ends if 0 <= token < around.vocabulary)
    if known_ends and (config.min_length > prompt or config.min_new_tokens):
        yield rules.MinLength(known_ends, config.min_length, config.min_new_tokens or 0)
    if config.exponential_decay_length_penalty is not None:
        yield _decay(config, known_ends)
    yield from _given_tokens(config, prompt, new_tokens, around)
    if around.processors:
        yield rules.Custom(around.processors, around.as_given)
    grammar = grammar_of(config, around)
    if grammar is not None:
        yield rules.Grammar(grammar)
    if sampled:
        # Beams go on behind a token that ends nothing, so one of those has to stay, as in transformers.
        yield from _warpers(config, len(ends) + 1 if config.num_beams > 1 else 1)
    yield from _finishing(config, around)


def _biases(config: GenerationConfig, around: Surroundings) -> Iterator[rules.Rule]:
    given = config.sequence_bias
    listed = given.items() if isinstance(given, dict) else given or ()
    biases = {tuple(words): bias for words, bias in listed}
    alone = {(token,): bias for token, bias in (config.logit_bias or {}).items()}
    _within(tuple(biases), "sequence_bias", around)
    _within(tuple(alone), "logit_bias", around)
    if biases or alone:
        yield rules.SequenceBias((*biases.items(), *alone.items()))


def _penalties(config: GenerationConfig, around: Surroundings) -> Iterator[rules.Rule]:
    if config.encoder_repetition_penalty != 1:
        yield rules.EncoderRepetitionPenalty(config.encoder_repetition_penalty)
    if config.repetition_penalty != 1:
        yield rules.RepetitionPenalty(config.repetition_penalty)
    if config.frequency_penalty or config.presence_penalty:
        yield rules.FrequencyPresence(config.frequency_penalty, config.presence_penalty)
    if config.dry_multiplier:
        breakers = breakers_of(config.dry_sequence_breakers, around.tokenizer)
        yield rules.DRY(config.dry_multiplier, config.dry_base, config.dry_allowed_length, breakers, config.dry_range)
    if config.no_repeat_ngram_size:
        yield rules.NoRepeatNgrams(config.no_repeat_ngram_size)
    if config.encoder_no_repeat_ngram_size:
        yield rules.EncoderNoRepeatNgrams(config.encoder_no_repeat_ngram_size)


def _decay(config: GenerationConfig, ends: tuple[int, ...]) -> rules.Rule:
    start, factor = config.exponential_decay_length_penalty or (0, 1.0)
    if not ends:
        raise ArgumentError(
            f"exponential_decay_length_penalty={(start, factor)} raises the end tokens, and there is none. "
            "Pass eos_token_id, or leave it out."
        )
    return rules.ExponentialDecay(start, factor, ends)


def _given_tokens(config: GenerationConfig, prompt: int, new_tokens: int, around: Surroundings) -> Iterator[rules.Rule]:
    if config.allowed_token_ids is not None:
        [tokens] = _within((tuple(config.allowed_token_ids),), "allowed_token_ids", around)
        yield rules.AllowedTokens(tokens, around.vocabulary)
    if around.allowed is not None:
        yield rules.PrefixAllowed(around.allowed, around.row, around.as_given)
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


def _warpers(config: GenerationConfig, keep: int) -> Iterator[rules.Rule]:
    """What shapes a distribution before a draw, and leaves at least `keep` tokens."""
    if config.temperature != 1:
        yield rules.Temperature(config.temperature)
    if config.mirostat_mode:
        _check_mirostat(config)
        yield rules.Mirostat(config.mirostat_tau, config.mirostat_eta)
        return
    if config.top_n_sigma is not None:
        yield rules.TopNSigma(config.top_n_sigma)
    if config.top_h is not None:
        yield rules.TopH(config.top_h)
    if config.top_k:
        yield rules.TopK(max(config.top_k, keep))
    if config.top_p < 1:
        yield rules.TopP(config.top_p, keep)
    if config.min_p is not None:
        yield rules.MinP(config.min_p, keep)
    if config.typical_p < 1:
        yield rules.Typical(config.typical_p, keep)
    if config.epsilon_cutoff:
        yield rules.Epsilon(config.epsilon_cutoff, keep)
    if config.eta_cutoff:
        yield rules.Eta(config.eta_cutoff, keep)
    if config.xtc_probability:
        yield rules.XTC(config.xtc_probability, config.xtc_threshold)


def _check_mirostat(config: GenerationConfig) -> None:
    if config.num_beams > 1:
        raise ArgumentError(
            f"mirostat_mode={config.mirostat_mode} follows one text, and num_beams={config.num_beams} are several. "
            "Leave one of them out."
        )
    other = min(_TRUNCATING & config.explicit, default=None)
    if other is not None:
        raise ArgumentError(
            f"mirostat_mode={config.mirostat_mode} takes the place of {other}={getattr(config, other)!r}. "
            "Leave one of them out."
        )


def _finishing(config: GenerationConfig, around: Surroundings) -> Iterator[rules.Rule]:
    mark = config.watermarking_config
    if isinstance(mark, WatermarkingConfig):
        yield rules.GreenList(mark, around.vocabulary)
    elif isinstance(mark, SynthIDTextWatermarkingConfig):
        yield rules.SynthID(mark)
    if config.remove_invalid_values:
        yield rules.RemoveInvalid()
    if config.renormalize_logits:
        yield rules.Renormalize()


def _within(words: tuple[tuple[int, ...], ...], argument: str, around: Surroundings) -> tuple[tuple[int, ...], ...]:
    if not all(words):
        raise ArgumentError(f"{argument} has an empty list of tokens. Leave it out.")
    bad = next((token for word in words for token in word if not 0 <= token < around.vocabulary), None)
    if bad is not None:
        raise ArgumentError(f"{argument} names the token {bad}; the vocabulary is 0 to {around.vocabulary - 1}.")
    return words
