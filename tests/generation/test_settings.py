"""Where settings come from: the model's config, the caller's, keyword arguments; seeds; and objects of the caller's."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import loquent
from loquent import ArgumentError, ContextLengthError, GenerationConfig

IDS = torch.tensor([[5, 6, 7]])
SAMPLED = {"do_sample": True, "max_new_tokens": 8}


def length(result: Any) -> int:
    return int(result.shape[1]) - IDS.shape[1]


MERGES: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "the model's": ({"max_new_tokens": 4}, None, {}),
    "keywords over the model's": ({"max_new_tokens": 4}, None, {"max_new_tokens": 5}),
    "a config over the model's": ({"max_new_tokens": 4}, {"max_new_tokens": 6}, {}),
    "a config beside the model's": ({"max_new_tokens": 4, "repetition_penalty": 4.0}, {"max_new_tokens": 6}, {}),
    "keywords over a config": ({}, {"max_new_tokens": 6}, {"max_new_tokens": 3}),
    "all three": ({"repetition_penalty": 4.0}, {"max_new_tokens": 6}, {"no_repeat_ngram_size": 1}),
    "new tokens over a length": ({"max_length": 5}, None, {"max_new_tokens": 6}),
    "a stored length": ({"max_length": 9}, None, {}),
    "a length asked for": ({}, None, {"max_length": 8}),
    "new tokens over a length at once": ({}, None, {"max_length": 5, "max_new_tokens": 3}),
    "nothing": ({}, None, {}),
    "None is the default": ({"repetition_penalty": 4.0, "max_new_tokens": 9}, None, {"repetition_penalty": None}),
}


@pytest.mark.parametrize("case", MERGES.values(), ids=MERGES)
def test_configs_merge_as_in_transformers(pair: tuple[Any, Any], model: Any, case: Any, tmp_path: Path) -> None:
    stored, given, keywords = case
    _, theirs = pair
    transformers.GenerationConfig(**stored).save_pretrained(tmp_path)
    model.generation_config = GenerationConfig.from_pretrained(tmp_path)
    before = theirs.generation_config
    try:
        theirs.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
        theirs.generation_config._from_model_config = False
        config = None if given is None else transformers.GenerationConfig(**given)
        if keywords.get("repetition_penalty", 1) is None:
            keywords = {**keywords, "repetition_penalty": 1.0}
        wanted = theirs.generate(IDS, config, attention_mask=torch.ones_like(IDS), pad_token_id=1, **keywords)
    finally:
        theirs.generation_config = before
    config = None if given is None else GenerationConfig(**given)
    assert model.generate(IDS, config, pad_token_id=1, **case[2]).tolist() == wanted.tolist()


def test_an_explicit_length_means_what_it_says(model: Any) -> None:
    """Where transformers takes its default value for not set."""
    assert length(model.generate(IDS)) == 20
    assert length(model.generate(IDS, GenerationConfig(max_length=20))) == 17
    assert length(model.generate(IDS, max_length=20)) == 17


def test_settings_are_left_as_they_were(model: Any) -> None:
    model.generation_config = GenerationConfig(max_new_tokens=2)
    given = GenerationConfig(max_new_tokens=3)
    assert length(model.generate(IDS, given, max_new_tokens=4)) == 4
    assert (model.generation_config.max_new_tokens, given.max_new_tokens) == (2, 3)
    assert length(model.generate(IDS)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_token": 3}, "generate\\(\\) has no argument 'max_new_token'"),
        ({"max_new_token": 3}, "Did you mean 'max_new_tokens'"),
        ({"stop_criteria": []}, "Did you mean 'stopping_criteria'"),
        ({"assistant_model": 7}, "assistant_model=7 is a int"),
        ({"guidance_scale": math.inf}, "guidance_scale=inf is of type infinite float"),
        ({"zebra": 1, "apple": None}, "no argument 'apple', 'zebra'"),
        ({"generation_config": {"max_new_tokens": 3}}, "is a dict. Pass a loquent.GenerationConfig"),
        ({"temperature": -1.0, "do_sample": True}, "temperature=-1.0"),
        ({"top_p": 1.5, "do_sample": True}, "top_p=1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3"),
        ({"num_return_sequences": 3}, "num_return_sequences=3"),
        ({"max_length": 3}, "max_length=3 counts the prompt"),
        ({"stop_strings": "x"}, "stop_strings='x'.*tokenizer="),
        ({"context_overflow": "wrap"}, "context_overflow='wrap'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"seed": "7"}, "seed='7'"),
        ({"seed": torch.tensor(3.0)}, "seed=tensor"),
        ({"seed": [[3]]}, r"seed=\[3\]"),
        ({"seed": [1, 2]}, "seed has 2 values for 1 rows"),
        ({"logits_processor": [lambda ids, scores: None]}, "logits_processor .* returned NoneType for scores of type"),
        ({"logits_processor": [lambda ids, scores: scores[0]]}, r"returned Tensor of shape \(\d+,\) for scores"),
        ({"logits_processor": [lambda ids, scores: scores.numpy()]}, "returned ndarray of shape .* of type Tensor"),
        ({"streamer": loquent.TextStreamer}, "streamer is the class TextStreamer. Pass an object"),
        ({"streamer": "stdout"}, "streamer is a str. Pass an object"),
        ({"logits_processor": 5}, "logits_processor has 5"),
        ({"stopping_criteria": [len, None]}, "stopping_criteria has None"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_bad_arguments_are_refused(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.generate(IDS, **arguments)


def test_past_the_positions(model: Any) -> None:
    long = torch.randint(2, 37, (1, 60), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ContextLengthError, match="64 positions"):
        model.generate([[5], long[0].tolist()], max_new_tokens=6)
    slid = model.generate(long, max_new_tokens=40, context_overflow="slide")
    assert slid.shape == (1, 100)
    fitting = model.generate(long, max_new_tokens=5)
    assert slid[0, :65].tolist() == fitting[0].tolist()
    for drafts in ({"assistant_early_exit": 1}, {"assistant_model": model}, {"prompt_lookup_num_tokens": 3}):
        with pytest.raises(ContextLengthError, match=r"drafts .* do not go with"):
            model.generate(long, max_new_tokens=40, context_overflow="slide", **drafts)
    # Full at 64: the context begins again with its younger half and the token that did not fit.
    assert slid[0, 65] == model.generate(slid[:, 32:65], max_new_tokens=1)[0, -1]


def test_rules_count_from_the_beginning_where_the_context_slides(model: Any) -> None:
    seen = []

    def record(input_ids: Any, scores: Any) -> Any:
        seen.append(input_ids[0].tolist())
        return scores

    long = torch.randint(2, 37, (1, 60), generator=torch.Generator().manual_seed(0))
    slid = model.generate(
        long, max_new_tokens=30, context_overflow="slide", forced_eos_token_id=9, logits_processor=[record]
    )
    assert slid[0, -1] == 9
    assert seen == [slid[0, :stop].tolist() for stop in range(60, 90)]


def test_seeds_repeat_and_rows_are_independent(model: Any) -> None:
    prompts = [[5, 6, 7], [5, 6, 7], [8, 9, 10]]
    one = model.generate(prompts, seed=3, **SAMPLED).tolist()
    assert model.generate(prompts, seed=3, **SAMPLED).tolist() == one
    assert one[0] == one[1]  # a seed for each row, the same
    listed = model.generate(prompts, seed=[3, 4, 3], **SAMPLED).tolist()
    assert (listed[0], listed[2]) == (one[0], one[2])
    assert listed[1] != one[1]
    assert model.generate([prompts[1]], seed=[4], **SAMPLED).tolist() == [listed[1]]
    for seeds in (np.int64(3), torch.tensor(3), np.array([3, 3, 3]), torch.tensor([3, 3, 3]), (3, 3, 3)):
        assert model.generate(prompts, seed=seeds, **SAMPLED).tolist() == one
    assert model.generate(prompts, GenerationConfig(seed=3, **SAMPLED)).tolist() == one
    assert model.generate(prompts, GenerationConfig(seed=9, **SAMPLED), seed=3).tolist() == one


def test_without_a_seed_every_call_and_row_differs_until_set_seed(model: Any) -> None:
    prompts = [[5, 6, 7]] * 2

    def twice() -> list[list[int]]:
        return [row for _ in range(2) for row in model.generate(prompts, **{**SAMPLED, "temperature": 2.0}).tolist()]

    loquent.set_seed(11)
    first = twice()
    assert len({tuple(row) for row in first}) == 4
    assert twice() != first
    loquent.set_seed(11)
    assert twice() == first


def test_torchs_seed_makes_sampling_repeatable(model: Any) -> None:
    prompts = [[5, 6, 7]] * 2
    settings = {**SAMPLED, "temperature": 2.0}
    torch.manual_seed(4)
    first = [model.generate(prompts, **settings).tolist() for _ in range(2)]
    assert first[0] != first[1]
    torch.manual_seed(4)
    assert [model.generate(prompts, **settings).tolist() for _ in range(2)] == first


def test_arguments_that_ask_for_nothing_change_nothing(model: Any) -> None:
    nothing = {"assistant_model": None, "synced_gpus": False, "prefix_allowed_tokens_fn": None, "guidance_scale": 1.0}
    nothing |= {"output_logits": False, "penalty_alpha": 0.0, "past_key_values": None}
    assert model.generate(IDS, **nothing).tolist() == model.generate(IDS).tolist()


def test_several_samples_of_each_row(model: Any) -> None:
    settings = {**SAMPLED, "temperature": 2.0, "seed": 3}
    prompts = [[5, 6, 7], [8, 9, 10]]
    four = model.generate(prompts, num_return_sequences=4, **settings).tolist()
    assert len({tuple(row) for row in four}) == 8
    assert [row[:3] for row in four] == [prompts[0]] * 4 + [prompts[1]] * 4
    assert model.generate(prompts, num_return_sequences=2, **settings).tolist() == four[0:2] + four[4:6]
    assert model.generate(prompts, **settings).tolist() == [four[0], four[4]]


def test_sampling_draws_from_the_models_distribution(model: Any) -> None:
    """Chi-square over 4 kept tokens, 3 degrees of freedom: p = 0.001 at 16.3."""
    count = 1500
    result = model.generate(
        [[5, 6, 7]] * count, do_sample=True, top_k=4, temperature=1.5, seed=list(range(count)), max_new_tokens=1
    )
    with torch.no_grad():
        logits = model(IDS).logits[0, -1] / 1.5
    best = logits.topk(4)
    expected = best.values.softmax(-1).numpy() * count
    observed = np.array([(result[:, -1] == token).sum().item() for token in best.indices])
    assert observed.sum() == count
    assert ((observed - expected) ** 2 / expected).sum() < 16.3


def test_zero_temperature_is_greedy(model: Any) -> None:
    greedy = model.generate(IDS, max_new_tokens=8).tolist()
    assert model.generate(IDS, max_new_tokens=8, do_sample=True, temperature=0).tolist() == greedy
    assert model.generate(IDS, max_new_tokens=8, do_sample=True, top_k=1).tolist() == greedy


class BanOne(transformers.LogitsProcessor):
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores[:, 28] = -float("inf")
        return scores


class StopAtTwelve(transformers.StoppingCriteria):
    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= 12)


def test_processors_and_criteria_written_for_transformers(pair: tuple[Any, Any], model: Any) -> None:
    _, theirs = pair
    arguments = {
        "logits_processor": transformers.LogitsProcessorList([BanOne(), transformers.TopKLogitsWarper(3)]),
        "stopping_criteria": transformers.StoppingCriteriaList([StopAtTwelve()]),
        "max_new_tokens": 30,
        "pad_token_id": 1,
    }
    for beams in (1, 3):
        wanted = theirs.generate(IDS, attention_mask=torch.ones_like(IDS), num_beams=beams, **arguments)
        assert model.generate(IDS, num_beams=beams, **arguments).tolist() == wanted.tolist()
    batch = model.generate([[5, 6, 7], [8]], **arguments)
    assert batch[0].tolist()[:12] == model.generate(IDS, **arguments)[0].tolist()
    assert batch.shape == (2, 14)  # the shorter prompt has more to go


def test_processors_and_criteria_of_ours(model: Any) -> None:
    class Ban(loquent.LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return scores.masked_fill(torch.arange(37) == 28, -float("inf"))

    class Stop(loquent.StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
            return bool(input_ids.shape[1] == 9)

    plain = model.generate(IDS, max_new_tokens=12)
    assert 28 in plain
    found = model.generate(
        IDS,
        max_new_tokens=12,
        logits_processor=loquent.LogitsProcessorList([Ban()]),
        stopping_criteria=loquent.StoppingCriteriaList([Stop()]),
    )
    assert 28 not in found
    assert found.shape == (1, 9)
    assert model.generate(IDS, max_new_tokens=12, logits_processor=Ban(), stopping_criteria=Stop()).tolist() == (
        found.tolist()
    )


def test_a_failing_processor_reaches_the_caller(model: Any) -> None:
    def broken(input_ids: Any, scores: Any) -> Any:
        raise KeyError("broken processor")

    with pytest.raises(KeyError, match="broken processor"):
        model.generate([[5], [6]], logits_processor=[broken])


def test_time_ends_rows(model: Any) -> None:
    def slow(input_ids: Any, scores: Any) -> Any:
        time.sleep(0.02)
        return scores

    result = model.generate(IDS, max_new_tokens=60, max_time=0.1, logits_processor=[slow])
    assert 1 <= length(result) < 30


def test_stop_strings(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260k"
    model, tokenizer = (kind.from_pretrained(folder) for kind in (loquent.AutoModelForCausalLM, loquent.AutoTokenizer))
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    whole = tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0])
    stop = whole[70:75]
    found = model.generate(**inputs, max_new_tokens=60, stop_strings=[stop, "never"], tokenizer=tokenizer)
    text = tokenizer.decode(found[0])
    assert whole.startswith(text)
    assert stop in text
    assert stop not in tokenizer.decode(found[0, :-1])
    # What the prompt has does not end anything.
    assert model.generate(**inputs, max_new_tokens=5, stop_strings="upon", tokenizer=tokenizer).shape[1] == (
        inputs["input_ids"].shape[1] + 5
    )
    events = list(model.stream(**inputs, max_new_tokens=60, stop_strings=stop, tokenizer=tokenizer))
    assert events[-1].finished == "stop_string"


def test_the_dictionary_output(model: Any) -> None:
    output = model.generate(IDS, max_new_tokens=3, return_dict_in_generate=True)
    assert output.sequences.tolist() == output["sequences"].tolist() == output[0].tolist()
    assert list(output) == ["sequences", "past_key_values"]
    beams = model.generate(IDS, max_new_tokens=3, num_beams=2, return_dict_in_generate=True)
    assert beams.sequences_scores.shape == (1,)
    assert beams[1] is beams.sequences_scores


def test_greedy_search_leaves_torchs_generator_alone(model: Any) -> None:
    before = torch.get_rng_state()
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert torch.equal(torch.get_rng_state(), before)
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=True)
    assert not torch.equal(torch.get_rng_state(), before)
