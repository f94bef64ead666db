"""Every rule on numpy and torch arrays: equal to each other, to transformers', and row by row to being alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers.generation.logits_process as theirs
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.config.watermarking import SynthIDTextWatermarkingConfig, WatermarkingConfig
from loquent.decoding.arrays import to_numpy
from loquent.decoding.rules import (
    DRY,
    ORDER,
    XTC,
    AllowedTokens,
    BadWords,
    Context,
    Custom,
    EncoderNoRepeatNgrams,
    EncoderRepetitionPenalty,
    Epsilon,
    Eta,
    ExponentialDecay,
    ForcedBegin,
    ForcedEnd,
    FrequencyPresence,
    GreenList,
    MinLength,
    MinP,
    Mirostat,
    NoRepeatNgrams,
    PrefixAllowed,
    RemoveInvalid,
    Renormalize,
    RepetitionPenalty,
    Rule,
    SequenceBias,
    Suppress,
    SuppressAtBegin,
    SynthID,
    Temperature,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    Typical,
    apply_rules,
)

VOCABULARY = 13
PROMPT = 2
LENGTH = 9  # where a forced end comes

Library = Callable[[Any], Any]
LIBRARIES: dict[str, Library] = {"numpy": np.array, "torch": torch.tensor}

GREEN = WatermarkingConfig(greenlist_ratio=0.4, bias=1.5, hashing_key=987654321987)
OWN_GREEN = WatermarkingConfig(greenlist_ratio=0.5, bias=-1.0, seeding_scheme="selfhash", context_width=2)


def mark_of_theirs(config: WatermarkingConfig) -> Callable[[Any, Any], Any]:
    processor = theirs.WatermarkLogitsProcessor(VOCABULARY, "cpu", **config.to_dict())
    if config.seeding_scheme == "lefthash":
        return processor

    def on_a_small_vocabulary(input_ids: Any, scores: Any) -> Any:
        """Its loop over the 40 best tokens fails where there are fewer."""
        green = processor._get_greenlist_ids
        tokens = scores[0].sort(descending=True).indices.tolist()
        own = [token for token in tokens if token in green(torch.cat([input_ids[0], torch.tensor([token])]))]
        marked = scores.clone()
        marked[0, own] += config.bias
        return marked if input_ids.shape[1] >= config.context_width else scores

    return on_a_small_vocabulary


CASES: dict[str, tuple[Rule, Callable[[], Any]]] = {
    "temperature": (Temperature(0.7), lambda: theirs.TemperatureLogitsWarper(0.7)),
    "temperature above 1": (Temperature(3), lambda: theirs.TemperatureLogitsWarper(3.0)),
    "top-k 1": (TopK(1), lambda: theirs.TopKLogitsWarper(1)),
    "top-k": (TopK(4), lambda: theirs.TopKLogitsWarper(4)),
    "top-k of all": (TopK(99), lambda: theirs.TopKLogitsWarper(99)),
    "top-p": (TopP(0.6), lambda: theirs.TopPLogitsWarper(0.6)),
    "top-p, hardly any": (TopP(0.01), lambda: theirs.TopPLogitsWarper(0.01)),
    "top-p, nearly all": (TopP(0.99), lambda: theirs.TopPLogitsWarper(0.99)),
    "min-p": (MinP(0.15), lambda: theirs.MinPLogitsWarper(0.15)),
    "min-p 0": (MinP(0.0), lambda: theirs.MinPLogitsWarper(0.0)),
    "min-p 1": (MinP(1.0), lambda: theirs.MinPLogitsWarper(1.0)),
    "repetition": (RepetitionPenalty(1.3), lambda: theirs.RepetitionPenaltyLogitsProcessor(1.3)),
    "repetition welcome": (RepetitionPenalty(0.4), lambda: theirs.RepetitionPenaltyLogitsProcessor(0.4)),
    "1-grams": (NoRepeatNgrams(1), lambda: theirs.NoRepeatNGramLogitsProcessor(1)),
    "2-grams": (NoRepeatNgrams(2), lambda: theirs.NoRepeatNGramLogitsProcessor(2)),
    "3-grams": (NoRepeatNgrams(3), lambda: theirs.NoRepeatNGramLogitsProcessor(3)),
    "bad words": (
        BadWords(((5,), (1, 2), (0, 1), (2, 1, 0))),
        lambda: theirs.NoBadWordsLogitsProcessor([[5], [1, 2], [0, 1], [2, 1, 0]]),
    ),
    "min length": (MinLength((3, 7), total=6), lambda: theirs.MinLengthLogitsProcessor(6, [3, 7])),
    "min new tokens": (
        MinLength((3, 7), new=3),
        lambda: theirs.MinNewTokensLengthLogitsProcessor(PROMPT, 3, [3, 7]),
    ),
    "forced begin": (ForcedBegin(4), lambda: theirs.ForcedBOSTokenLogitsProcessor(4)),
    "forced end": (ForcedEnd((6,), LENGTH), lambda: theirs.ForcedEOSTokenLogitsProcessor(LENGTH, 6)),
    "forced ends": (ForcedEnd((6, 2), LENGTH), lambda: theirs.ForcedEOSTokenLogitsProcessor(LENGTH, [6, 2])),
    "typical": (Typical(0.5), lambda: theirs.TypicalLogitsWarper(0.5)),
    "typical, nearly all": (Typical(0.97), lambda: theirs.TypicalLogitsWarper(0.97)),
    "typical, 4 kept": (Typical(0.2, 4), lambda: theirs.TypicalLogitsWarper(0.2, min_tokens_to_keep=4)),
    "epsilon": (Epsilon(0.1), lambda: theirs.EpsilonLogitsWarper(0.1)),
    "epsilon, 3 kept": (Epsilon(0.9, 3), lambda: theirs.EpsilonLogitsWarper(0.9, min_tokens_to_keep=3)),
    "eta": (Eta(0.3), lambda: theirs.EtaLogitsWarper(0.3)),
    "eta, 3 kept": (Eta(0.6, 3), lambda: theirs.EtaLogitsWarper(0.6, min_tokens_to_keep=3)),
    "top-p, 3 kept": (TopP(0.1, 3), lambda: theirs.TopPLogitsWarper(0.1, min_tokens_to_keep=3)),
    "min-p, 3 kept": (MinP(0.9, 3), lambda: theirs.MinPLogitsWarper(0.9, min_tokens_to_keep=3)),
    "sequence bias": (
        SequenceBias((((5,), 1.5), ((5, 6), -2.0), ((1, 2), 3.0), ((0, 2), -1.0), ((2, 1, 3), 0.25))),
        lambda: theirs.SequenceBiasLogitsProcessor(
            {(5,): 1.5, (5, 6): -2.0, (1, 2): 3.0, (0, 2): -1.0, (2, 1, 3): 0.25}
        ),
    ),
    "decay": (
        ExponentialDecay(1, 1.3, (3, 7)),
        lambda: theirs.ExponentialDecayLengthPenalty((1, 1.3), [3, 7], PROMPT),
    ),
    "invalid removed": (RemoveInvalid(), lambda: theirs.InfNanRemoveLogitsProcessor()),
    "renormalized": (Renormalize(), lambda: theirs.LogitNormalization()),
    "green list": (GreenList(GREEN, VOCABULARY), lambda: mark_of_theirs(GREEN)),
    "green list of itself": (GreenList(OWN_GREEN, VOCABULARY), lambda: mark_of_theirs(OWN_GREEN)),
    "suppressed": (Suppress((0, 12)), lambda: theirs.SuppressTokensLogitsProcessor([0, 12])),
    "suppressed at the begin": (
        SuppressAtBegin((1, 2)),
        lambda: theirs.SuppressTokensAtBeginLogitsProcessor([1, 2], PROMPT),
    ),
    "suppressed behind a forced begin": (
        SuppressAtBegin((1, 2), index=1),
        lambda: theirs.SuppressTokensAtBeginLogitsProcessor([1, 2], PROMPT + 1),
    ),
}

finite = st.floats(-8, 8, width=16)
rows_of_scores = st.lists(finite | st.just(-math.inf), min_size=VOCABULARY, max_size=VOCABULARY).filter(
    lambda row: max(row) > -math.inf
)
histories = st.lists(st.integers(0, 2), min_size=PROMPT, max_size=LENGTH)


def context(tokens: list[int]) -> Context:
    return Context(np.array(tokens, np.int64), min(PROMPT, len(tokens)))


def applied(library: Library, scores: list[list[float]], rules: list[tuple[Rule, ...]], texts: list[list[int]]) -> Any:
    array = library(np.array(scores, np.float32))
    return to_numpy(apply_rules(array, rules, [context(tokens) for tokens in texts]))


def expected(processor: Any, scores: list[float], tokens: list[int]) -> np.ndarray:
    return processor(torch.tensor([tokens]), torch.tensor([scores])).numpy()[0]


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same tokens are left, with the same scores."""
    np.testing.assert_array_equal(np.isinf(found), np.isinf(wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rules_are_those_of_transformers(case: tuple[Rule, Callable[[], Any]], library: Library) -> None:
    rule, make = case
    random = np.random.default_rng(0)
    for length in [1, *range(PROMPT, LENGTH + 1)] * 3:
        tokens = random.integers(0, 4, length).tolist()
        if isinstance(rule, BadWords | SequenceBias) and length < 3:
            continue  # see test_a_bad_word_is_banned_in_a_short_text
        scores = (random.standard_normal(VOCABULARY) * 3).tolist()
        if length == 1 and isinstance(rule, SuppressAtBegin | MinLength | ExponentialDecay):
            continue  # their prompt length is fixed
        [found] = applied(library, [scores], [(rule,)], [tokens])
        assert_same(found, expected(make(), scores, tokens))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.lists(st.tuples(rows_of_scores, histories), min_size=1, max_size=4))
def test_libraries_agree_and_rows_are_independent(name: str, rows: list[tuple[list[float], list[int]]]) -> None:
    rule, _ = CASES[name]
    scores, texts = [row for row, _ in rows], [tokens for _, tokens in rows]
    found = {kind: applied(make, scores, [(rule,)] * len(rows), texts) for kind, make in LIBRARIES.items()}
    assert_same(found["numpy"], found["torch"])
    for library in LIBRARIES.values():
        alone = [applied(library, [row], [(rule,)], [tokens])[0] for row, tokens in rows]
        assert_same(applied(library, scores, [(rule,)] * len(rows), texts), np.stack(alone))


kinds = st.fixed_dictionaries(
    {},
    optional={
        "repetition": st.floats(0.5, 2).map(RepetitionPenalty),
        "ngrams": st.integers(1, 3).map(NoRepeatNgrams),
        "words": st.sampled_from([BadWords(((5,), (1, 2))), BadWords(((8,),))]),
        "length": st.sampled_from([MinLength((3,), total=5), MinLength((7,), new=4)]),
        "begin": st.just(ForcedBegin(4)),
        "end": st.just(ForcedEnd((6,), 5)),
        "suppress": st.just(Suppress((11,))),
        "suppress at begin": st.just(SuppressAtBegin((9,))),
        "temperature": st.floats(0.3, 2).map(Temperature),
        "top-k": st.integers(1, 15).map(TopK),
        "top-p": st.floats(0.05, 0.95).map(TopP),
        "min-p": st.floats(0, 0.5).map(MinP),
        "bias": st.sampled_from([SequenceBias((((5,), 2.0), ((1, 2), -3.0))), SequenceBias((((8,), 1.0),))]),
        "encoder": st.floats(0.5, 2).map(EncoderRepetitionPenalty),
        "encoder ngrams": st.integers(1, 3).map(EncoderNoRepeatNgrams),
        "frequency": st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda both: FrequencyPresence(*both)),
        "dry": st.integers(1, 3).map(lambda least: DRY(0.5, 1.75, least, ((2,),))),
        "allowed": st.sets(st.integers(0, 12), min_size=5).map(lambda some: AllowedTokens(tuple(some), VOCABULARY)),
        "decay": st.floats(0.5, 1.5).map(lambda factor: ExponentialDecay(1, factor, (3, 7))),
        "top-n-sigma": st.floats(0.5, 3).map(TopNSigma),
        "top-h": st.floats(0.1, 1).map(TopH),
        "typical": st.floats(0.05, 0.95).map(Typical),
        "epsilon": st.floats(0.01, 0.5).map(Epsilon),
        "eta": st.floats(0.01, 0.5).map(Eta),
        "xtc": st.floats(0, 1).map(lambda often: XTC(often, 0.1)),
        "mirostat": st.floats(0.5, 4).map(lambda tau: Mirostat(tau, 0.1)),
        "green": st.sampled_from([GreenList(GREEN, VOCABULARY), GreenList(OWN_GREEN, VOCABULARY)]),
        "synthid": st.integers(2, 4).map(lambda size: SynthID(SynthIDTextWatermarkingConfig(size, [5, 9, 2]))),
        "renormalize": st.just(Renormalize()),
    },
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(rows_of_scores, histories, kinds), min_size=1, max_size=5), st.sampled_from(sorted(LIBRARIES))
)
def test_mixed_settings_act_row_by_row(rows: list[tuple[list[float], list[int], dict[str, Rule]]], name: str) -> None:
    library = LIBRARIES[name]
    rules = [tuple(reversed(own.values())) for *_, own in rows]  # given in any order
    together = applied(library, [row for row, *_ in rows], rules, [tokens for _, tokens, _ in rows])
    for found, (row, tokens, _), own in zip(together, rows, rules):
        np.testing.assert_array_equal(found, applied(library, [row], [own], [tokens])[0])


def test_the_order_is_that_of_transformers() -> None:
    """The processors that transformers makes of a config with everything on, in its order."""
    fields = {
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[9]],
        "min_length": 4,
        "min_new_tokens": 2,
        "forced_bos_token_id": 1,
        "forced_eos_token_id": 2,
        "suppress_tokens": [3],
        "begin_suppress_tokens": [4],
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.7,
        "min_p": 0.1,
        "typical_p": 0.9,
        "epsilon_cutoff": 0.01,
        "eta_cutoff": 0.01,
        "sequence_bias": [[[3], 1.0]],
        "encoder_repetition_penalty": 1.1,
        "encoder_no_repeat_ngram_size": 3,
        "remove_invalid_values": True,
        "exponential_decay_length_penalty": (3, 1.2),
        "renormalize_logits": True,
        "watermarking_config": {"bias": 1.0},
        "eos_token_id": [2],
    }
    config = transformers_config(fields)
    made = small_model()._get_logits_processor(
        config, PROMPT, torch.tensor([[1, 2]]), lambda *_: [1], theirs.LogitsProcessorList(), device="cpu"
    )
    names = {
        "RepetitionPenaltyLogitsProcessor": RepetitionPenalty,
        "NoRepeatNGramLogitsProcessor": NoRepeatNgrams,
        "NoBadWordsLogitsProcessor": BadWords,
        "MinLengthLogitsProcessor": MinLength,
        "MinNewTokensLengthLogitsProcessor": MinLength,
        "ForcedBOSTokenLogitsProcessor": ForcedBegin,
        "ForcedEOSTokenLogitsProcessor": ForcedEnd,
        "SuppressTokensLogitsProcessor": Suppress,
        "SuppressTokensAtBeginLogitsProcessor": SuppressAtBegin,
        "TemperatureLogitsWarper": Temperature,
        "TopKLogitsWarper": TopK,
        "TopPLogitsWarper": TopP,
        "MinPLogitsWarper": MinP,
        "TypicalLogitsWarper": Typical,
        "EpsilonLogitsWarper": Epsilon,
        "EtaLogitsWarper": Eta,
        "SequenceBiasLogitsProcessor": SequenceBias,
        "EncoderRepetitionPenaltyLogitsProcessor": EncoderRepetitionPenalty,
        "EncoderNoRepeatNGramLogitsProcessor": EncoderNoRepeatNgrams,
        "PrefixConstrainedLogitsProcessor": PrefixAllowed,
        "InfNanRemoveLogitsProcessor": RemoveInvalid,
        "ExponentialDecayLengthPenalty": ExponentialDecay,
        "WatermarkLogitsProcessor": GreenList,
        "LogitNormalization": Renormalize,
    }
    order = list(dict.fromkeys(names[type(processor).__name__] for processor in made))
    assert order == [rule for rule in ORDER if rule in order]
    assert set(order) == set(names.values())
    assert ORDER.index(SuppressAtBegin) < ORDER.index(Custom) < ORDER.index(Temperature)  # where it merges others


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=VOCABULARY, max_size=VOCABULARY, unique=True), histories, st.integers(0, 2**32 - 1))
def test_the_whole_pipeline_is_that_of_transformers(scores: list[float], tokens: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    temperature, top_p = float(random.uniform(0.5, 2)), float(random.uniform(0.3, 0.95))
    pipeline: list[tuple[Rule, Any]] = [
        (RepetitionPenalty(1.4), theirs.RepetitionPenaltyLogitsProcessor(1.4)),
        (NoRepeatNgrams(2), theirs.NoRepeatNGramLogitsProcessor(2)),
        (Suppress((11,)), theirs.SuppressTokensLogitsProcessor([11])),
        (Temperature(temperature), theirs.TemperatureLogitsWarper(temperature)),
        (TopK(6), theirs.TopKLogitsWarper(6)),
        (TopP(top_p), theirs.TopPLogitsWarper(top_p)),
        (MinP(0.05), theirs.MinPLogitsWarper(0.05)),
    ]
    wanted = torch.tensor([scores])
    for _, processor in pipeline:
        wanted = processor(torch.tensor([tokens]), wanted)
    for library in LIBRARIES.values():
        [found] = applied(library, [scores], [tuple(rule for rule, _ in pipeline)], [tokens])
        assert_same(found, wanted.numpy()[0])


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_top_p_of_a_wide_vocabulary(library: Library) -> None:
    """Where few tokens are enough, where hundreds are, where nearly all are, in one batch and alone."""
    random = np.random.default_rng(0)
    scores = random.standard_normal((5, 6000)).astype(np.float32) * np.array([[8], [2.5], [1], [0.2], [3]], np.float32)
    scores[4, 50:] = -math.inf
    masses = [0.9, 0.8, 0.95, 0.99, 0.7]
    rules: list[tuple[Rule, ...]] = [(TopP(mass),) for mass in masses]
    found = to_numpy(apply_rules(library(scores.copy()), rules, [context([0, 0])] * 5))
    kept = [int(np.isfinite(row).sum()) for row in found]
    assert kept[0] < 100 < kept[1] < 4096 < kept[3]
    for row, mass, left in zip(scores, masses, found):
        wanted = theirs.TopPLogitsWarper(mass)(torch.tensor([[0]]), torch.tensor(row[None])).numpy()[0]
        different = np.flatnonzero(np.isinf(left) != np.isinf(wanted))
        assert len(different) <= 1 + 0.002 * len(row)  # where float32 sums of thousands round another way
        alone = apply_rules(library(row[None].copy()), [(TopP(mass),)], [context([0, 0])])
        np.testing.assert_array_equal(to_numpy(alone)[0], left)


def test_tokens_that_tie_stay_together() -> None:
    """Which of equal scores a library sorts first must not matter, so none of them is cut off alone."""
    row = [2.0, 1.0, 1.0, 1.0, 0.0]
    for library in LIBRARIES.values():
        for rule, left in ((TopK(2), 4), (TopK(1), 1), (TopP(0.5), 4), (TopP(0.4), 1), (TopP(0.2), 1)):
            array = library(np.array([row], np.float32))
            found = to_numpy(apply_rules(array, [(rule,)], [context([0, 0])]))
            assert int(np.isfinite(found).sum()) == left, rule


def test_a_bad_word_is_banned_in_a_short_text() -> None:
    """transformers asks for one token more of context than a word's beginning has, and lets it pass here."""
    for library in LIBRARIES.values():
        [found] = applied(library, [[0.0] * VOCABULARY], [(BadWords(((0, 1), (0, 1, 2))),)], [[0]])
        assert np.flatnonzero(np.isinf(found)).tolist() == [1]
    assert not np.isinf(expected(theirs.NoBadWordsLogitsProcessor([[0, 1]]), [0.0] * VOCABULARY, [0])).any()


def test_own_processors_see_one_row_and_may_change_it_in_place() -> None:
    seen = []

    def ban_last(input_ids: Any, scores: Any) -> Any:
        seen.append((type(scores), tuple(scores.shape), input_ids.tolist()))
        scores[:, int(input_ids[0, -1])] = -math.inf
        return scores

    def halve(input_ids: Any, scores: Any) -> Any:
        return scores / 2

    rules: list[tuple[Rule, ...]] = [(Custom((ban_last, halve)),), (), (Custom((halve,)), Temperature(0.25))]
    for library in LIBRARIES.values():
        found = applied(library, [[4.0] * VOCABULARY] * 3, rules, [[7, 5], [1, 1], [1, 2, 3]])
        assert found[:, 0].tolist() == [2.0, 4.0, 8.0]
        assert np.argwhere(np.isinf(found)).tolist() == [[0, 5]]
    assert seen == [(kind, (1, VOCABULARY), [[7, 5]]) for kind in (np.ndarray, torch.Tensor)]


def transformers_config(fields: dict[str, Any]) -> Any:
    import transformers

    config = transformers.GenerationConfig(**fields)
    config._eos_token_tensor = torch.tensor(config.eos_token_id)
    config._pad_token_tensor = torch.tensor(0)
    return config


def small_model() -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    return transformers.LlamaForCausalLM(config)
