"""Speculation through `generate()`: against transformers and plain decoding, and what its arguments refuse."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

import loquent
from decoding.pairs import MakePair
from loquent import ArgumentError, ContextLengthError, GenerationConfig
from loquent.decoding.trace import Drafted

PAD = 1
PROMPTS = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8, 9, 9]]
COMMON: dict[str, Any] = {"max_new_tokens": 16, "pad_token_id": PAD, "eos_token_id": 2, "do_sample": False}

RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "no end": {"eos_token_id": None},
    "several ends": {"eos_token_id": [2, 5, 11, 17]},
    "repetition": {"repetition_penalty": 1.4},
    "no repeated pairs": {"no_repeat_ngram_size": 2},
    "at least so long": {"min_new_tokens": 9, "eos_token_id": [14, 25, 33]},
    "suppressed": {"suppress_tokens": [3, 4, 5]},
}
CONSTANT = {"num_assistant_tokens_schedule": "constant", "num_assistant_tokens": 4}
SURE = {**CONSTANT, "assistant_confidence_threshold": 0.0}
KINDS: dict[str, dict[str, Any]] = {
    "assistant": {"assistant": 1},
    "constant": {"assistant": 1, **CONSTANT},
    "sure of itself": {"assistant": 1, **SURE},
    "itself": {"assistant": 0, **SURE},
    "heuristic": {"assistant": 1, "num_assistant_tokens_schedule": "heuristic_transient"},
    "lookup": {"prompt_lookup_num_tokens": 4},
    "lookup of triples": {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 3},
    "early exit": {"assistant_early_exit": 1, **SURE},
}


def asked_of_ours(kind: str, llama_pair: MakePair) -> dict[str, Any]:
    asked = dict(KINDS[kind])
    if "assistant" in asked:
        asked["assistant_model"] = llama_pair(asked.pop("assistant"))[0]
    return asked


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_plain_greedy_and_transformers(kind: str, rules: str, llama_pair: MakePair) -> None:
    ours, theirs = llama_pair(0)
    common = {**COMMON, **RULES[rules]}
    found = ours.generate(PROMPTS, **common, **asked_of_ours(kind, llama_pair))
    assert torch.equal(found, ours.generate(PROMPTS, **common))
    for row, prompt in zip(found, PROMPTS):
        alone = ours.generate([prompt], **common, **asked_of_ours(kind, llama_pair))[0, len(prompt) :]
        ids = torch.tensor([prompt])
        expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **common)[0, len(prompt) :]
        assert alone.tolist() == expected.tolist()
        width = max(map(len, PROMPTS))
        assert row[width : width + len(alone)].tolist() == alone.tolist()


@pytest.mark.parametrize(
    "schedule",
    [
        {"num_assistant_tokens_schedule": "constant", "num_assistant_tokens": 3},
        {"num_assistant_tokens_schedule": "heuristic", "num_assistant_tokens": 2},
        {"num_assistant_tokens_schedule": "heuristic_transient", "num_assistant_tokens": 5},
        {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.3},
    ],
    ids=["constant", "heuristic", "transient", "threshold"],
)
@pytest.mark.parametrize("drafter", [1, 2])
def test_rounds_are_those_of_transformers(
    schedule: dict[str, Any], drafter: int, llama_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation.candidate_generator import AssistedCandidateGenerator as Candidates

    # What scikit-learn makes of the threshold there, where it is installed, is not part of the schedule.
    monkeypatch.setattr("transformers.generation.candidate_generator.is_sklearn_available", lambda: False)
    (ours, theirs), (small, their_small) = llama_pair(0), llama_pair(drafter)
    common = {**COMMON, "eos_token_id": None, "max_new_tokens": 24}
    settings = {"assistant_confidence_threshold": 0.0, **schedule}
    prompt = PROMPTS[2]
    plain = ours.generate([prompt], **common)[0].tolist()

    run = loquent.generation.start(ours, [prompt], None, traced=True, assistant_model=small, **common, **settings)
    events = traced(run)
    rounds = [len(event.drafts) for event in events if isinstance(event, Drafted)]

    # Ours reads the prompt alone first: theirs starts where that is done.
    their_rounds: list[int] = []
    draft = Candidates.get_candidates

    def counted(self: Any, input_ids: Any) -> Any:
        candidates, logits = draft(self, input_ids)
        their_rounds.append(candidates.shape[1] - input_ids.shape[1])
        return candidates, logits

    monkeypatch.setattr(Candidates, "get_candidates", counted)
    for name, value in settings.items():
        monkeypatch.setattr(their_small.generation_config, name, value)
    ids = torch.tensor([plain[: len(prompt) + 1]])
    found = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        assistant_model=their_small,
        **{**common, "max_new_tokens": 23},
    )
    assert found[0].tolist() == plain
    assert rounds == [count for count in their_rounds if count]
    assert sum(rounds) > 0


def traced(run: Any) -> list[Any]:
    """What a run of one request tells of its way."""
    for _ in run.events():
        pass
    events: list[Any] = run.requests[0].handle.events
    return events


def test_settings_come_from_the_call_then_the_assistant_then_the_model(llama_pair: MakePair) -> None:
    ours, small = llama_pair(0)[0], llama_pair(2)[0]

    def first_rounds(**asked: Any) -> list[int]:
        common = {**COMMON, "eos_token_id": None, "max_new_tokens": 10, "assistant_confidence_threshold": 0.0}
        run = loquent.generation.start(ours, [PROMPTS[2]], None, traced=True, assistant_model=small, **common, **asked)
        return [len(event.drafts) for event in traced(run) if isinstance(event, Drafted)][:2]

    before = small.generation_config, ours.generation_config
    try:
        ours.generation_config = GenerationConfig.from_dict(
            {"num_assistant_tokens": 6, "num_assistant_tokens_schedule": "constant"}
        )
        assert first_rounds() == [6, 6]
        small.generation_config = GenerationConfig.from_dict({"num_assistant_tokens": 4})
        assert first_rounds() == [4, 4]
        assert first_rounds(num_assistant_tokens=3) == [3, 3]
    finally:
        small.generation_config, ours.generation_config = before


def test_the_heuristic_outlasts_a_call_unless_it_is_transient(llama_pair: MakePair) -> None:
    ours, small = llama_pair(0)[0], llama_pair(5)[0]

    def first_round(schedule: str) -> int:
        run = loquent.generation.start(
            *(ours, [PROMPTS[2]], None),
            traced=True,
            assistant_model=small,
            num_assistant_tokens=7,
            num_assistant_tokens_schedule=schedule,
            assistant_confidence_threshold=0.0,
            **{**COMMON, "eos_token_id": None},
        )
        return next(len(event.drafts) for event in traced(run) if isinstance(event, Drafted))

    assert first_round("heuristic_transient") == 7
    assert first_round("heuristic_transient") == 7
    assert first_round("heuristic") == 7
    assert first_round("heuristic") < 7


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_depends_on_the_seed_alone(kind: str, llama_pair: MakePair) -> None:
    ours = llama_pair(0)[0]
    asked = {**COMMON, "do_sample": True, "temperature": 1.3, **asked_of_ours(kind, llama_pair)}
    together = ours.generate(PROMPTS, seed=[5, 6, 7], num_return_sequences=2, **asked)
    width = max(map(len, PROMPTS))
    for index, prompt in enumerate(PROMPTS):
        alone = ours.generate([prompt], seed=5 + index, num_return_sequences=2, **asked)[:, len(prompt) :]
        assert torch.equal(together[2 * index : 2 * index + 2, width : width + alone.shape[1]], alone)
        streamed: list[list[int]] = [[], []]
        for event in ours.stream([prompt], seed=5 + index, num_return_sequences=2, **asked):
            streamed[event.row] += event.tokens
        assert [row[: len(tokens)] for row, tokens in zip(alone.tolist(), streamed)] == streamed


def test_weights_that_change_or_go_leave_no_stale_drafts(llama_pair: MakePair) -> None:
    ours = llama_pair(0)[0]
    small = loquent.AutoModelForCausalLM.from_config(llama_pair(1)[0].config)
    constant = {"num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.0}
    common = {**COMMON, "eos_token_id": None, "assistant_model": small, **constant}
    plain = ours.generate(PROMPTS, **{**COMMON, "eos_token_id": None})

    def standing(asked: dict[str, Any]) -> int:
        run = loquent.generation.start(ours, [PROMPTS[2] * 3], None, traced=True, **asked)
        return sum(event.accepted for event in traced(run) if isinstance(event, Drafted))

    before = standing(common)
    with torch.no_grad():
        for mine, other in zip(small.parameters(), ours.parameters()):
            mine.copy_(other)
    assert standing(common) > before
    for parameter in small.parameters():
        parameter.data = parameter.data.clone()
    assert standing(common) > before
    assert torch.equal(ours.generate(PROMPTS, **common), plain)
    reader = weakref.ref(next(iter(small._engine_slot.readers[ours._engine_slot.engine].values())))
    del small, common
    gc.collect()
    assert reader() is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"assistant_model": 1, "num_beams": 2}, r"num_beams=2 does not go with drafts"),
    ({"assistant_model": 1, "prompt_lookup_num_tokens": 3}, r"prompt_lookup_num_tokens=3 and assistant_model both"),
    ({"assistant_early_exit": 1, "prompt_lookup_num_tokens": 3}, r"=3 and assistant_early_exit both draft"),
    ({"assistant_model": 1, "assistant_early_exit": 1}, r"assistant_early_exit=1 and assistant_model both draft"),
    ({"assistant_early_exit": 2}, r"assistant_early_exit=2 must be less than the model's 2 layers"),
    ({"assistant_model": "gpt2"}, r"assistant_model='gpt2' is a str"),
    ({"assistant_tokenizer": 5}, r"assistant_tokenizer is there, and assistant_model= is not"),
    ({"assistant_model": 1, "assistant_tokenizer": 5}, r"assistant_tokenizer is there, and tokenizer= is not"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_is_refused_by_name(asked: dict[str, Any], message: str, llama_pair: MakePair) -> None:
    if asked.get("assistant_model") == 1:
        asked = {**asked, "assistant_model": llama_pair(1)[0]}
    with pytest.raises(ArgumentError, match=message):
        llama_pair(0)[0].generate(PROMPTS, **COMMON, **asked)


def test_an_assistant_must_fit(llama_pair: MakePair) -> None:
    ours = llama_pair(0)[0]
    config = type(ours.config)(**{**ours.config.to_dict(), "vocab_size": 40})
    with pytest.raises(ArgumentError, match=r"a vocabulary of 40 tokens, the model one of 37.*assistant_tokenizer="):
        ours.generate(PROMPTS, assistant_model=loquent.AutoModelForCausalLM.from_config(config), **COMMON)
    config = type(ours.config)(**{**ours.config.to_dict(), "max_position_embeddings": 20})
    short = loquent.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ContextLengthError, match="take 24 positions, and assistant_model has 20"):
        ours.generate(PROMPTS, assistant_model=short, **COMMON)
    with pytest.raises(ContextLengthError, match=r'do not go with context_overflow="slide"'):
        ours.generate([[5] * 60], prompt_lookup_num_tokens=2, context_overflow="slide", **COMMON)


def test_a_draft_that_costs_as_much_as_the_model_is_not_made_unless_asked_for(llama_pair: MakePair) -> None:
    ours = llama_pair(0)[0]
    common = {**COMMON, "eos_token_id": None, "max_new_tokens": 41, "assistant_confidence_threshold": 0.0}
    constant = {"num_assistant_tokens": 4, "num_assistant_tokens_schedule": "constant"}
    for asked, events in ({}, 41), (constant, 1 + 40 // 5):
        run = loquent.generation.start(ours, [[3, 4, 5]], None, traced=True, assistant_model=ours, **common, **asked)
        assert len(traced(run)) == events
