"""Arguments: how long, which strategy, which rules, or a refusal that names the argument, its value and the remedy."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from loquent import ArgumentError, ContextLengthError, GenerationConfig
from loquent.decoding import rules
from loquent.decoding.arguments import resolve
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.decoding.random import branch_seed
from loquent.decoding.strategies import beam_search, one_by_one
from loquent.decoding.task import Decoding

MODEL = Surroundings(vocabulary=50, max_positions=64)
PROMPT = [1, 2, 3, 4]


def resolved(around: Surroundings = MODEL, prompt: list[int] = PROMPT, **fields: Any) -> Decoding:
    [decoding] = resolve(GenerationConfig(**fields), prompt, 0, around)
    return decoding


def new_tokens(around: Surroundings = MODEL, prompt: list[int] = PROMPT, **fields: Any) -> int:
    return resolved(around, prompt, **fields).stopping.max_new_tokens


def test_lengths() -> None:
    assert new_tokens() == 20
    assert new_tokens(max_length=20) == 16
    assert new_tokens(max_new_tokens=7) == 7
    assert new_tokens(max_new_tokens=7, max_length=9) == 7
    assert new_tokens(max_new_tokens=7, max_length=2) == 7
    assert new_tokens(replace(MODEL, default_new_tokens=50)) == 50
    stored = GenerationConfig.from_dict({"max_length": 30})
    assert resolve(stored, PROMPT, 0, MODEL)[0].stopping.max_new_tokens == 26


def test_the_default_takes_the_positions_that_are_left() -> None:
    assert new_tokens(prompt=[1] * 60) == 5  # the last is never read
    assert new_tokens(prompt=[1] * 64) == 1
    assert new_tokens(replace(MODEL, max_positions=None), prompt=[1] * 63) == 20
    with pytest.raises(ContextLengthError, match="65 tokens"):
        new_tokens(prompt=[1] * 65)


@pytest.mark.parametrize("asked", [{"max_new_tokens": 62}, {"max_length": 66}])
def test_past_the_positions_is_refused(asked: dict[str, int]) -> None:
    [(name, value)] = asked.items()
    with pytest.raises(ContextLengthError, match=rf"{name}={value} exceed the model's 64 positions.*at most 61"):
        resolved(**asked)
    assert resolved(**{name: value - 1}).stopping.max_new_tokens == 61
    assert new_tokens(replace(MODEL, max_positions=None), **asked) == 62


def test_a_length_that_the_prompt_has_already_is_refused() -> None:
    for length in (3, 4):
        with pytest.raises(ArgumentError, match=f"max_length={length} counts the prompt, which has 4.*max_new_tokens"):
            resolved(max_length=length)
    assert new_tokens(max_length=5) == 1


def test_sliding() -> None:
    sliding = replace(MODEL, slide=True)
    assert resolved(sliding, max_new_tokens=61).context is None
    assert resolved(sliding, max_new_tokens=62).context == 64
    assert resolved(sliding, [1] * 200).context == 64
    assert resolved(replace(sliding, max_positions=None), max_new_tokens=999).context is None
    assert resolved(sliding, max_new_tokens=61, num_beams=2).context is None
    with pytest.raises(ContextLengthError, match="num_beams=2 does not go with"):
        resolved(sliding, max_new_tokens=62, num_beams=2)


def test_strategies() -> None:
    assert resolved().strategy is one_by_one
    assert not resolved().sampled
    assert resolved(do_sample=True).sampled
    assert not resolved(do_sample=True, temperature=0).sampled
    beams = resolved(num_beams=4, length_penalty=2.0, early_stopping="never", num_return_sequences=3)
    assert isinstance(beams.strategy, partial)
    assert beams.strategy.func is beam_search
    assert beams.strategy.keywords == {"width": 4, "length_penalty": 2.0, "early_stopping": "never"}
    assert (beams.branches, beams.returned) == (4, 3)


def test_samples_of_one_prompt_have_seeds_of_their_own() -> None:
    config = GenerationConfig(do_sample=True, num_return_sequences=3)
    assert [decoding.seed for decoding in resolve(config, PROMPT, 9, MODEL)] == [branch_seed(9, k) for k in range(3)]


def test_equal_sequences_are_refused() -> None:
    with pytest.raises(ArgumentError, match="num_return_sequences=2"):
        resolve(GenerationConfig.from_dict({"num_return_sequences": 2}), PROMPT, 0, MODEL)
    with pytest.raises(ArgumentError, match=r"num_return_sequences=2.*temperature above 0"):
        resolve(GenerationConfig(do_sample=True, temperature=0, num_return_sequences=2), PROMPT, 0, MODEL)


EVERYTHING = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[9], [7], [7, 8]],
    "eos_token_id": [7, 99],
    "min_length": 6,
    "min_new_tokens": 3,
    "forced_bos_token_id": 1,
    "forced_eos_token_id": 2,
    "suppress_tokens": [3],
    "begin_suppress_tokens": [4],
    "do_sample": True,
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.7,
    "min_p": 0.1,
    "max_new_tokens": 10,
}


def test_every_rule_that_a_config_asks_for() -> None:
    def own(input_ids: Any, scores: Any) -> Any:
        return scores

    assert resolved(replace(MODEL, processors=(own,)), **EVERYTHING).rules == (
        rules.RepetitionPenalty(1.5),
        rules.NoRepeatNgrams(2),
        rules.BadWords(((9,), (7, 8))),  # an end token alone is no bad word
        rules.MinLength((7,), 6, 3),  # 99 is no token of this model
        rules.ForcedBegin(1),
        rules.ForcedEnd((2,), 14),
        rules.Suppress((3,)),
        rules.SuppressAtBegin((4,), 0),
        rules.Custom((own,)),
        rules.Temperature(0.5),
        rules.TopK(5),
        rules.TopP(0.7),
        rules.MinP(0.1),
    )


def test_rules_that_would_do_nothing_are_left_out() -> None:
    assert resolved(do_sample=True, top_k=0).rules == ()
    assert resolved(do_sample=True, top_k=None, temperature=1, top_p=1.0).rules == ()
    assert resolved(do_sample=True).rules == (rules.TopK(50),)  # the default that transformers has
    assert resolved(min_length=4, eos_token_id=7).rules == ()
    assert resolved(min_length=9).rules == ()  # nothing ends but the length
    assert resolved().rules == ()


def test_a_first_token_that_is_forced_moves_what_is_suppressed() -> None:
    [_, suppressed] = resolved(prompt=[1], forced_bos_token_id=5, begin_suppress_tokens=[4]).rules
    assert suppressed == rules.SuppressAtBegin((4,), 1)


def test_without_sampling_only_the_rules_that_transformers_applies_then() -> None:
    stored = GenerationConfig.from_dict({"temperature": 0.5, "top_k": 5, "top_p": 0.7, "repetition_penalty": 1.5})
    assert resolve(stored, PROMPT, 0, MODEL)[0].rules == (rules.RepetitionPenalty(1.5),)


@pytest.mark.parametrize(
    "asked",
    [
        {"bad_words_ids": [[3, 50]]},
        {"suppress_tokens": [-1]},
        {"begin_suppress_tokens": [50]},
        {"forced_bos_token_id": 77},
        {"forced_eos_token_id": [3, 50]},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_tokens_outside_the_vocabulary_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=rf"{next(iter(asked))} names the token .* vocabulary is 0 to 49"):
        resolved(**asked)


def test_an_empty_bad_word_is_refused() -> None:
    with pytest.raises(ArgumentError, match="bad_words_ids has an empty list"):
        resolved(bad_words_ids=[[3], []])


@pytest.mark.parametrize(("prompt", "named"), [([], "no tokens"), ([1, 50], "the token 50"), ([-1], "the token -1")])
def test_prompts_that_are_none(prompt: list[int], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        resolved(prompt=prompt)


def test_stopping() -> None:
    class Tokenizer:
        def decode(self, token_ids: Any, **kwargs: Any) -> str:
            return "".join(map(chr, token_ids))

    before = time.monotonic()
    around = replace(MODEL, tokenizer=Tokenizer(), criteria=(lambda ids, scores: False,))
    stopping = resolved(around, eos_token_id=7, max_time=50.0, stop_strings="ab").stopping
    assert stopping.eos == (7,)
    assert stopping.strings is not None
    assert stopping.strings.texts == ("ab",)
    assert stopping.criteria == around.criteria
    assert stopping.deadline is not None
    assert 49 < stopping.deadline - before < 51
    assert stopping.reason(np.array([5]), [ord("a"), ord("b")]) == "stop_string"
    several = resolved(around, stop_strings=["x", "yz"]).stopping.strings
    assert several is not None
    assert several.texts == ("x", "yz")
    with pytest.raises(ArgumentError, match=r"stop_strings='ab' are texts\. Pass tokenizer="):
        resolved(stop_strings="ab")
