"""The dictionary that `generate` returns against transformers': classes, fields, shapes and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from loquent import ArgumentError, Cache
from loquent.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from loquent.native.loading import load_native

PAD = 1
ROWS = torch.tensor([[3, 4, 5, 6], [7, 7, 9, 2], [30, 12, 8, 5]])
EVERYTHING = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "output_hidden_states": True,
    "output_attentions": True,
    "pad_token_id": PAD,
}
GREEDY: dict[str, dict[str, Any]] = {
    "plain": {"max_new_tokens": 5},
    "one token": {"max_new_tokens": 1},
    "rules": {"max_new_tokens": 5, "repetition_penalty": 1.4, "suppress_tokens": [4, 9]},
    "an end": {"max_new_tokens": 8, "eos_token_id": [28, 14, 3]},
}
BEAMS: dict[str, dict[str, Any]] = {
    "three": {"num_beams": 3, "max_new_tokens": 5},
    "all returned": {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 5},
    "one token": {"num_beams": 2, "max_new_tokens": 1},
    "rules": {"num_beams": 3, "max_new_tokens": 5, "repetition_penalty": 1.4, "length_penalty": 2.0},
    "ends": {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8, "eos_token_id": [28, 14, 3, 5]},
    "stopping early": {"num_beams": 2, "max_new_tokens": 8, "eos_token_id": [28, 14, 3, 5], "early_stopping": True},
}


def alike(found: Any, expected: Any) -> None:
    """Compares nested tuples of tensors; of a cache that there is one, which holds other things in its own form."""
    if isinstance(found, Cache):
        assert isinstance(expected, transformers.Cache)
        return
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
        return
    assert isinstance(found, tuple)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        alike(one, other)


def both(pair: tuple[Any, Any], ids: Tensor, **asked: Any) -> tuple[Any, Any]:
    ours, theirs = pair
    theirs.set_attn_implementation("eager")
    found = ours.generate(ids, **EVERYTHING, **asked)
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **EVERYTHING, **asked)
    return found, expected


def compare(found: Any, expected: Any) -> None:
    assert list(expected) == list(found)
    for name in found:
        alike(found[name], expected[name])


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_search_gives_what_transformers_gives(pair: tuple[Any, Any], model: Any, name: str) -> None:
    for row in ROWS:
        found, expected = both(pair, row[None], **GREEDY[name])
        assert type(found).__name__ == type(expected).__name__ == "GenerateDecoderOnlyOutput"
        compare(found, expected)
    if "eos_token_id" not in GREEDY[name]:
        compare(*both(pair, ROWS, **GREEDY[name]))


@pytest.mark.parametrize("name", BEAMS)
def test_beams_give_what_transformers_gives(pair: tuple[Any, Any], model: Any, name: str) -> None:
    for row in ROWS:
        found, expected = both(pair, row[None], **BEAMS[name])
        assert type(found).__name__ == type(expected).__name__ == "GenerateBeamDecoderOnlyOutput"
        compare(found, expected)
    if "eos_token_id" not in BEAMS[name]:
        compare(*both(pair, ROWS, **BEAMS[name]))


def test_sampling_gives_the_shapes_of_transformers_and_the_models_numbers(pair: tuple[Any, Any], model: Any) -> None:
    asked = {"do_sample": True, "top_k": 5, "num_return_sequences": 2, "max_new_tokens": 4}
    found = pair[0].generate(ROWS, seed=4, **EVERYTHING, **asked)
    expected = pair[1].generate(ROWS, attention_mask=torch.ones_like(ROWS), **EVERYTHING, **asked)
    for name in found:
        assert _shapes(found[name]) == _shapes(expected[name])
    logits = pair[1](found.sequences).logits
    for step in range(4):
        torch.testing.assert_close(found.logits[step], logits[:, 3 + step], rtol=1e-4, atol=1e-4)
        kept = torch.isfinite(found.scores[step])
        assert kept.sum(-1).tolist() == [5] * 6
        assert kept.gather(1, found.sequences[:, 4 + step, None]).all()


def _shapes(value: Any) -> Any:
    if isinstance(value, Cache | transformers.Cache):
        return value.get_seq_length()
    return tuple(value.shape) if isinstance(value, Tensor) else [_shapes(one) for one in value]


@pytest.mark.parametrize("flag", ["output_logits", "output_hidden_states", "output_attentions"])
def test_what_has_a_row_for_each_beam_tells_which_row_is_whose(pair: tuple[Any, Any], model: Any, flag: str) -> None:
    asked: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 5, "pad_token_id": PAD, "return_dict_in_generate": True}
    asked[flag] = True
    expected = pair[1].generate(ROWS, attention_mask=torch.ones_like(ROWS), **asked)
    assert torch.equal(model.generate(ROWS, **asked).beam_indices, expected.beam_indices)


@pytest.mark.parametrize(
    "asked", [{}, {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True}], ids=["greedy", "beams"]
)
def test_a_batch_of_uneven_rows_that_end_differently_holds_what_each_row_gives_alone(
    model: Any, asked: dict[str, Any]
) -> None:
    prompts = [[3, 4, 5, 6], [7, 7], [30, 2, 9]]
    asked = {**asked, "max_new_tokens": 8, "eos_token_id": [28, 14, 3, 5]}
    found = model.generate(prompts, **EVERYTHING, **asked)
    alone = [model.generate([prompt], **EVERYTHING, **asked) for prompt in prompts]
    lengths = {len(one.scores) for one in alone}
    assert len(lengths) > 1
    assert len(found.scores) == len(found.hidden_states) == max(lengths)
    width = asked.get("num_beams", 1)
    fill = torch.full((width, 37), -torch.inf)
    fill[:, PAD] = 0
    for row, (prompt, one) in enumerate(zip(prompts, alone)):
        lanes, padding = slice(row * width, row * width + width), 4 - len(prompt)
        for step in range(max(lengths)):
            there = step < len(one.scores)
            torch.testing.assert_close(found.scores[step][lanes], one.scores[step] if there else fill)
            torch.testing.assert_close(found.logits[step][lanes], one.logits[step] if there else fill)
            for layer, states in enumerate(found.hidden_states[step]):
                new = states[lanes, padding if step == 0 else 0 :]
                torch.testing.assert_close(new, one.hidden_states[step][layer] if there else torch.zeros_like(new))
                assert not states[lanes, : 0 if step else padding].any()
            for layer, weights in enumerate(found.attentions[step]):
                new = weights[lanes, :, padding if step == 0 else 0 :, padding:]
                torch.testing.assert_close(new, one.attentions[step][layer] if there else torch.zeros_like(new))
                assert not weights[lanes, :, :, :padding].any()


@pytest.mark.parametrize(
    "asked",
    [
        {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.7, "eos_token_id": [28, 14, 3]},
        {"num_beams": 3, "length_penalty": 2.0, "repetition_penalty": 1.3},
    ],
)
def test_transition_scores_add_up_to_the_scores_of_beams(
    pair: tuple[Any, Any], model: Any, asked: dict[str, Any]
) -> None:
    ours, theirs = pair
    found = ours.generate(
        ROWS, max_new_tokens=7, return_dict_in_generate=True, output_scores=True, pad_token_id=PAD, **asked
    )
    scores = ours.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    torch.testing.assert_close(
        scores, theirs.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    )
    lengths = (found.beam_indices >= 0).sum(1)
    torch.testing.assert_close(scores.sum(1) / lengths ** asked["length_penalty"], found.sequences_scores)


@pytest.mark.parametrize("normalized", [False, True])
def test_transition_scores_of_greedy_search(pair: tuple[Any, Any], model: Any, normalized: bool) -> None:
    ours, theirs = pair
    found = ours.generate(ROWS, max_new_tokens=5, return_dict_in_generate=True, output_scores=True)
    scores = ours.compute_transition_scores(found.sequences, found.scores, normalize_logits=normalized)
    expected = theirs.compute_transition_scores(found.sequences, found.scores, normalize_logits=normalized)
    torch.testing.assert_close(scores, expected)
    arrays = [step.numpy() for step in found.scores]
    plain = ours.compute_transition_scores(found.sequences.numpy(), arrays, normalize_logits=normalized)
    np.testing.assert_allclose(plain, expected.numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="are not there"):
        ours.compute_transition_scores(found.sequences, ())
    with pytest.raises(ArgumentError, match="do not go together"):
        ours.compute_transition_scores(found.sequences[:2], found.scores)


def test_what_is_not_asked_for_is_neither_there_nor_recorded(model: Any) -> None:
    output = model.generate(ROWS, max_new_tokens=3, return_dict_in_generate=True)
    assert (list(output), len(output.to_tuple())) == (["sequences", "past_key_values"], 2)
    assert isinstance(output, GenerateDecoderOnlyOutput)
    with pytest.raises(KeyError):
        output["scores"]
    beams = model.generate(ROWS, max_new_tokens=3, num_beams=2, return_dict_in_generate=True, output_trace=True)
    assert isinstance(beams, GenerateBeamDecoderOnlyOutput)
    assert list(beams) == ["sequences", "sequences_scores", "past_key_values", "trace"]
    assert beams[3] is beams.trace
    plain = model.generate(ROWS, max_new_tokens=3, output_scores=True, output_trace=True)
    assert isinstance(plain, Tensor)


def test_recording_changes_nothing(model: Any) -> None:
    for asked in ({"do_sample": True, "seed": 5, "top_p": 0.8}, {"num_beams": 3}, {"repetition_penalty": 1.7}):
        plain = model.generate(ROWS, max_new_tokens=9, **asked)
        told = model.generate(ROWS, max_new_tokens=9, output_trace=True, **EVERYTHING, **asked)
        assert told.sequences.tolist() == plain.tolist()


def test_a_model_without_torch_gives_arrays_and_refuses_attentions(pair: tuple[Any, Any], tmp_path: Any) -> None:
    theirs = pair[1]
    theirs.save_pretrained(tmp_path)
    native = load_native(tmp_path, "float32")
    asked = {"max_new_tokens": 4, **EVERYTHING, "output_attentions": False}
    found = native.generate(ROWS.tolist(), **asked)
    expected = theirs.generate(ROWS, attention_mask=torch.ones_like(ROWS), **asked)
    assert isinstance(found.sequences, np.ndarray)
    for name in found:
        alike(_as_tensors(found[name]), expected[name])
    with pytest.raises(ArgumentError, match="output_attentions=True cannot work with a NativeModel"):
        native.generate(ROWS.tolist(), **EVERYTHING)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, Cache):
        return value
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else tuple(map(_as_tensors, value))


def test_a_context_that_slides_has_no_states_to_tell(model: Any) -> None:
    with pytest.raises(ArgumentError, match='context_overflow="slide" forgets what was read'):
        model.generate(
            ROWS,
            max_new_tokens=80,
            context_overflow="slide",
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
    output = model.generate(
        ROWS, max_new_tokens=80, context_overflow="slide", output_logits=True, return_dict_in_generate=True
    )
    assert len(output.logits) == 80


def test_the_trace_of_each_row(model: Any) -> None:
    output = model.generate(ROWS, max_new_tokens=4, output_trace=True, return_dict_in_generate=True, top_k=3)
    assert [trace.prompt for trace in output.trace] == [tuple(row) for row in ROWS.tolist()]
    for row, trace in zip(output.sequences.tolist(), output.trace):
        assert [event.nodes[0].token for event in trace.events] == row[4:]
        assert trace.results[0].tokens == tuple(row[4:])
        assert (trace.strategy, trace.backend) == ("one_by_one", model.describe_backend())
        assert trace.settings["max_new_tokens"] == 4


SPECULATION: dict[str, dict[str, Any]] = {
    "lookup": {"prompt_lookup_num_tokens": 3, "max_new_tokens": 9, "eos_token_id": 36},
    "lookup with rules": {"prompt_lookup_num_tokens": 2, "max_new_tokens": 9, "eos_token_id": 36, "min_length": 9},
}


@pytest.mark.parametrize("name", SPECULATION)
def test_speculation_gives_what_transformers_gives(pair: tuple[Any, Any], model: Any, name: str) -> None:
    for row in torch.tensor([[3, 4, 5, 6, 3, 4], [7, 7, 9, 7, 7, 9]]):
        found, expected = both(pair, row[None], **SPECULATION[name])
        assert type(found).__name__ == type(expected).__name__ == "GenerateDecoderOnlyOutput"
        assert len(found.scores) == found.sequences.shape[1] - 6
        compare(found, expected)


def test_diverse_beams_give_what_transformers_gives(pair: tuple[Any, Any], model: Any) -> None:
    """But for the beam indices, which count within groups there, so that they name rows of other groups."""
    asked = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7, "num_return_sequences": 4}
    for row in ROWS:
        found, expected = both(pair, row[None], max_new_tokens=6, **asked)
        for name in found:
            if name != "beam_indices":
                alike(found[name], expected[name])
        scores = model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
        torch.testing.assert_close(scores.sum(1) / 6, found.sequences_scores)


def test_constrained_beams_give_what_transformers_gives(pair: tuple[Any, Any], model: Any) -> None:
    """But for the scores, which are those of whole beams there, so that they do not add up."""
    for row in ROWS:
        found, expected = both(pair, row[None], max_new_tokens=6, num_beams=4, force_words_ids=[[8], [11, 3]])
        for name in found:
            if name == "beam_indices":  # there they may be missing, or go on with -1
                assert name not in expected or found[name].tolist() == expected[name][:, :6].tolist()
            elif name != "scores":
                alike(found[name], expected[name])
        scores = model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
        torch.testing.assert_close(scores.sum(1) / 6, found.sequences_scores)


def test_beam_samples_add_up_and_have_the_shapes_of_transformers(pair: tuple[Any, Any], model: Any) -> None:
    asked = {"num_beams": 3, "do_sample": True, "top_k": 9, "num_return_sequences": 2, "max_new_tokens": 5}
    found = pair[0].generate(ROWS, seed=4, **EVERYTHING, **asked)
    expected = pair[1].generate(ROWS, attention_mask=torch.ones_like(ROWS), **EVERYTHING, **asked)
    for name in found:
        assert _shapes(found[name]) == _shapes(expected[name])
    scores = model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
    torch.testing.assert_close(scores.sum(1) / 5, found.sequences_scores)


OTHERS: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "DoLa": {"dola_layers": "low"},
    "guidance": {"guidance_scale": 1.8},
}


@pytest.mark.parametrize("name", OTHERS)
def test_contrasts_and_guidance_give_what_transformers_gives(pair: tuple[Any, Any], model: Any, name: str) -> None:
    for row in ROWS:
        found, expected = both(pair, row[None], max_new_tokens=5, **OTHERS[name])
        for field in found:
            alike(found[field], expected[field])
