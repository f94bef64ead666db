"""Watermarks: the numbers are transformers', marked text is found by either library, and unmarked text is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import transformers.generation.logits_process as theirs

import loquent
from decoding.pairs import MakePair
from loquent.decoding.arrays import to_numpy
from loquent.decoding.rules import Context, GreenList, SynthID, apply_rules
from loquent.decoding.rules.green_list import green_list
from loquent.decoding.rules.synthid import context_hashes, sampling_table

LIBRARIES: dict[str, Callable[[Any], Any]] = {"numpy": np.array, "torch": torch.tensor}
WIDE = 500
KEYS = [654, 400, 836, 123, 340, 443, 597, 160, 57, 29, 590, 639]
GREEN = loquent.WatermarkingConfig(bias=2.5)
OWN_GREEN = loquent.WatermarkingConfig(bias=2.5, seeding_scheme="selfhash", context_width=3, hashing_key=2**62 + 11)
SYNTHID = loquent.SynthIDTextWatermarkingConfig(ngram_len=4, keys=KEYS)


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("config", [GREEN, OWN_GREEN], ids=["lefthash", "selfhash"])
def test_green_lists_are_those_of_transformers(
    config: loquent.WatermarkingConfig, library: Callable[[Any], Any]
) -> None:
    random = np.random.default_rng(0)
    processor = theirs.WatermarkLogitsProcessor(WIDE, "cpu", **config.to_dict())
    texts = [random.integers(0, WIDE, length) for length in (1, 3, 3, 9, 40)]
    scores = random.standard_normal((len(texts), WIDE)).astype(np.float32)
    contexts = [Context(text, 1) for text in texts]
    found = to_numpy(apply_rules(library(scores.copy()), [(GreenList(config, WIDE),)] * len(texts), contexts))
    for row, text in enumerate(texts):
        wanted = processor(torch.tensor(text[None]), torch.tensor(scores[row : row + 1]))
        np.testing.assert_array_equal(found[row], wanted[0].numpy())


def test_a_green_list_is_its_share_of_the_vocabulary() -> None:
    lists = [green_list(GREEN, 1001, [token]) for token in range(200)]
    assert {len(set(tokens.tolist())) for tokens in lists} == {250}
    often = np.bincount(np.concatenate(lists), minlength=1001)
    assert abs(often.mean() - 50) < 0.1
    assert often.max() < 50 + 5 * math.sqrt(200 * 0.25 * 0.75)


def test_the_sampling_table_is_that_of_transformers() -> None:
    for seed, size in ((0, 65536), (2**40 + 7, 1000)):
        processor = theirs.SynthIDTextWatermarkLogitsProcessor(5, KEYS, size, seed, 16, torch.device("cpu"))
        np.testing.assert_array_equal(sampling_table(seed, size), processor.sampling_table.numpy())


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"skip_first_ngram_calls": True}, {"debug_mode": True}, {"context_history_size": 3}],
    ids=lambda changes: next(iter(changes), "default"),
)
def test_synthid_is_that_of_transformers(changes: dict[str, Any], library: Callable[[Any], Any]) -> None:
    """Step by step over a text that repeats its contexts; tokens that other rules have banned stay so."""
    random = np.random.default_rng(1)
    config = loquent.SynthIDTextWatermarkingConfig.from_dict({"ngram_len": 3, "keys": KEYS, **changes})
    make = transformers.SynthIDTextWatermarkingConfig(**config.to_dict()).construct_processor(WIDE, torch.device("cpu"))
    tokens = [1, 2]
    for step in range(24):
        scores = random.standard_normal((1, WIDE)).astype(np.float32) * 3
        scores[0, random.integers(0, WIDE, 400)] = -np.inf
        wanted = make(torch.tensor([tokens]), torch.tensor(scores)).numpy()[0]
        context = Context(np.array(tokens, np.int64), 2)
        found = to_numpy(apply_rules(library(scores.copy()), [(SynthID(config),)], [context]))[0]
        wanted = np.where(wanted < -1e30, -np.inf, wanted)
        possible = np.isfinite(wanted) & (wanted > wanted.max() - 60)  # theirs loses small probabilities in float32
        np.testing.assert_allclose(found[possible], wanted[possible], atol=2e-3)
        assert np.isinf(found[np.isinf(wanted)]).all() or (found[np.isinf(wanted)] < found.max() - 60).all()
        tokens.append([7, 8, 9][step % 3] if step % 8 else int(random.integers(0, WIDE)))


def test_synthid_keeps_the_distribution_on_average() -> None:
    """A token's probability over 2,000 contexts: the mean is as unmarked, within 5 standard errors."""
    scores = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))
    config = loquent.SynthIDTextWatermarkingConfig(ngram_len=3, keys=KEYS)
    marked = np.array(
        [
            np.exp(apply_rules(scores.copy(), [(SynthID(config),)], [Context(np.array([1, a, b]), 1)])[0])
            for a in range(50)
            for b in range(40)
        ]
    )
    np.testing.assert_allclose(marked.sum(axis=1), 1, atol=1e-5)
    error = marked.std(axis=0) / math.sqrt(len(marked))
    assert (np.abs(marked.mean(axis=0) - np.exp(scores[0])) < 5 * error).all()
    assert (marked.std(axis=0) > 0.1).all()


def generated(pair: tuple[Any, Any], mark: Any, rows: int = 8) -> np.ndarray:
    model, _ = pair
    prompts = [[row + 1, 2 * row + 3] for row in range(rows)]
    made = model.generate(
        prompts, max_new_tokens=60, do_sample=True, temperature=2.0, seed=[*range(rows)], watermarking_config=mark
    )
    return made[:, 2:].numpy()


@pytest.mark.parametrize("config", [GREEN, OWN_GREEN], ids=["lefthash", "selfhash"])
def test_marked_text_is_found_and_other_text_is_not(llama_pair: MakePair, config: Any) -> None:
    """At z = 3: all of 8 marked texts of 60 tokens, none of 8 unmarked; another key finds nothing."""
    pair = llama_pair(1)
    detector = loquent.WatermarkDetector(pair[0].config, "cpu", config, ignore_repeated_ngrams=True)
    marked, unmarked = generated(pair, config), generated(pair, None)
    found = detector(marked, return_dict=True)
    assert found.prediction.all()
    assert (found.p_value < 0.003).all()
    assert not detector(unmarked).any()
    other = loquent.WatermarkingConfig.from_dict(config.to_dict(), hashing_key=99)
    assert not loquent.WatermarkDetector(pair[0].config, "cpu", other, ignore_repeated_ngrams=True)(marked).any()


@pytest.mark.parametrize("config", [GREEN, OWN_GREEN], ids=["lefthash", "selfhash"])
def test_the_detector_says_what_that_of_transformers_says(llama_pair: MakePair, config: Any) -> None:
    pair = llama_pair(1)
    texts = torch.tensor(np.concatenate([generated(pair, config, 3), generated(pair, None, 3)]))
    ours = loquent.WatermarkDetector(pair[0].config, "cpu", config.to_dict())(texts, return_dict=True)
    detector = transformers.WatermarkDetector(
        pair[1].config, "cpu", transformers.WatermarkingConfig(**config.to_dict())
    )
    wanted = detector(texts, return_dict=True)
    for name, value in vars(wanted).items():
        np.testing.assert_allclose(getattr(ours, name), value, err_msg=name)


def test_synthid_is_found_and_other_text_is_not(llama_pair: MakePair) -> None:
    """At z = 3: all of 8 marked texts of 60 tokens, none of 8 unmarked; another key finds nothing."""
    pair = llama_pair(1)
    scorer = loquent.SynthIDTextWatermarkScorer(SYNTHID)
    marked, unmarked = generated(pair, SYNTHID.to_dict()), generated(pair, None)
    found = scorer(marked, return_dict=True)
    assert found.prediction.all()
    assert (scorer.mean_score(marked) > 0.55).all()
    assert not scorer(unmarked).any()
    other = loquent.SynthIDTextWatermarkingConfig(ngram_len=4, keys=[key + 1 for key in KEYS])
    assert not loquent.SynthIDTextWatermarkScorer(other)(marked).any()


def test_g_values_and_masks_are_those_of_transformers() -> None:
    texts = torch.randint(0, 3, (3, 40), generator=torch.Generator().manual_seed(0))
    processor = transformers.SynthIDTextWatermarkingConfig(**SYNTHID.to_dict()).construct_processor(3, "cpu")
    scorer = loquent.SynthIDTextWatermarkScorer(SYNTHID, eos_token_id=2)
    np.testing.assert_array_equal(scorer.compute_g_values(texts), processor.compute_g_values(texts).numpy())
    fresh = processor.compute_context_repetition_mask(texts).numpy()
    np.testing.assert_array_equal(scorer.compute_context_repetition_mask(texts.numpy()), fresh)
    before_end = processor.compute_eos_token_mask(texts, 2).numpy()[:, SYNTHID.ngram_len - 1 :]
    np.testing.assert_array_equal(scorer.mask(texts), (fresh * before_end).astype(bool))
    assert not fresh.all()


def test_unmarked_scores_are_standard() -> None:
    """Of 400 random texts: the scores' mean is 0 and their deviation 1, within 4 standard errors."""
    texts = np.random.default_rng(3).integers(0, 50, (400, 120))
    z_scores = loquent.SynthIDTextWatermarkScorer(SYNTHID)(texts, return_dict=True).z_score
    assert abs(z_scores.mean()) < 4 / 20
    assert abs(z_scores.std() - 1) < 4 / math.sqrt(800)


def test_what_cannot_be_judged_is_refused(llama_pair: MakePair) -> None:
    detector = loquent.WatermarkDetector(llama_pair(1)[0].config, "cpu", OWN_GREEN)
    with pytest.raises(loquent.ArgumentError, match="context_width=3 needs 4"):
        detector([[1, 2, 3]])
    with pytest.raises(loquent.ArgumentError, match="no WatermarkingConfig"):
        loquent.WatermarkDetector(llama_pair(1)[0].config, "cpu", SYNTHID)
    with pytest.raises(loquent.ArgumentError, match="fewer than ngram_len"):
        loquent.SynthIDTextWatermarkScorer(SYNTHID)([[1, 2, 3]])
    with pytest.raises(loquent.ArgumentError, match="no token counts"):
        loquent.SynthIDTextWatermarkScorer(SYNTHID, eos_token_id=1)([[1, 2, 3, 4, 5]])


def test_context_hashes_depend_on_the_last_tokens_alone() -> None:
    text = np.arange(1, 11)
    hashes = context_hashes(SYNTHID, text)
    assert len(hashes) == 11
    assert len(set(hashes.tolist())) == 11
    assert context_hashes(SYNTHID, text[7:])[-1] == hashes[-1]
