"""What `generate()` takes as inputs, and how it lays out what it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loquent
from loquent import ArgumentError

PAD, END = 1, 2
ROW = [5, 6, 7]
SETTINGS = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PAD}


@pytest.fixture
def expected(model: Any) -> list[list[int]]:
    return model.generate(torch.tensor([ROW]), **SETTINGS).tolist()


FORMS: dict[str, Any] = {
    "a tensor": torch.tensor([ROW]),
    "a tensor of one dimension": torch.tensor(ROW),
    "32 bits": torch.tensor([ROW], dtype=torch.int32),
    "an array": np.array([ROW]),
    "a list of lists": [ROW],
    "a list": ROW,
    "tuples": (tuple(ROW),),
    "a list of tensors": [torch.tensor(ROW)],
    "a list of arrays": [np.array(ROW)],
    "a dict": {"input_ids": torch.tensor([ROW])},
    "a dict with a mask": {"input_ids": [ROW], "attention_mask": [[1, 1, 1]]},
    "a BatchEncoding": loquent.BatchEncoding({"input_ids": [ROW], "attention_mask": [[1, 1, 1]]}),
    "with what has no effect": {"input_ids": [ROW], "token_type_ids": [[0, 0, 0]]},
}


@pytest.mark.parametrize("inputs", FORMS.values(), ids=FORMS)
def test_one_row_in_any_form(model: Any, expected: list[list[int]], inputs: Any) -> None:
    found = model.generate(inputs, **SETTINGS)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    assert found.tolist() == expected
    if isinstance(inputs, dict):
        assert model.generate(**inputs, **SETTINGS).tolist() == expected


def test_one_row_is_laid_out_as_by_transformers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    for fields in ({}, {"eos_token_id": [20, 28, 14]}, {"max_length": 7}, {"min_new_tokens": 4, "eos_token_id": 14}):
        asked = {**SETTINGS, **fields}
        if "max_length" in fields:
            del asked["max_new_tokens"]
        ids = torch.tensor([ROW])
        wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), **asked)
        assert ours.generate(ids, **asked).tolist() == wanted.tolist()


@pytest.fixture
def uneven(model: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of different lengths, and what follows each of them."""
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    return prompts, [model.generate([prompt], **SETTINGS)[0, len(prompt) :].tolist() for prompt in prompts]


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_padded_rows(model: Any, uneven: tuple[list[list[int]], list[list[int]]], side: str, kind: Any) -> None:
    prompts, continuations = uneven
    ids, mask = [], []
    for prompt in prompts:
        before = {"left": 6 - len(prompt), "right": 0, "both": 1}[side]
        after = 6 - len(prompt) - before
        ids.append([30] * before + prompt + [30] * after)
        mask.append([0] * before + [1] * len(prompt) + [0] * after)
    found = model.generate(kind(ids), attention_mask=kind(mask), **SETTINGS).tolist()
    assert found == [row + new for row, new in zip(ids, continuations)]  # the columns come back as they were given


def test_rows_of_different_lengths(model: Any, uneven: tuple[list[list[int]], list[list[int]]]) -> None:
    prompts, continuations = uneven
    expected = [[PAD] * (5 - len(row)) + row + new for row, new in zip(prompts, continuations)]
    assert model.generate(prompts, **SETTINGS).tolist() == expected
    mask = [[1] * len(row) for row in prompts]
    assert model.generate(input_ids=prompts, attention_mask=mask, **SETTINGS).tolist() == expected
    assert model.generate([torch.tensor(row) for row in prompts], **SETTINGS).tolist() == expected
    masked = model.generate(prompts, attention_mask=[[0, 1, 1], [1], [1] * 5], **SETTINGS)
    assert masked[0, 5:].tolist() == model.generate([[6, 7]], **SETTINGS)[0, 2:].tolist()


def test_pad_tokens_without_a_mask(model: Any, uneven: tuple[list[list[int]], list[list[int]]]) -> None:
    """They are padding, unless the pad token is an end token too: then they may be text, as in transformers."""
    prompts, continuations = uneven
    for rows in ([[PAD] * (5 - len(row)) + row for row in prompts], [row + [PAD] * (5 - len(row)) for row in prompts]):
        for kind in (torch.tensor, list):
            assert model.generate(kind(rows), **SETTINGS)[:, 5:].tolist() == continuations
    text = [[PAD, PAD, *ROW]]
    as_text = model.generate(text, attention_mask=[[1] * 5], **SETTINGS)
    assert as_text.tolist() != model.generate(text, **SETTINGS).tolist()
    ending = model.generate(text, **{**SETTINGS, "eos_token_id": PAD, "min_new_tokens": 6})
    kept = model.generate(text, attention_mask=[[1] * 5], **{**SETTINGS, "eos_token_id": PAD, "min_new_tokens": 6})
    assert ending.tolist() == kept.tolist()


def test_rows_that_end_early_are_filled(model: Any) -> None:
    prompts = [[5, 6, 7], [8, 9], [12, 30]]
    whole = model.generate(prompts, max_new_tokens=12, pad_token_id=PAD)[:, 3:].tolist()
    end = whole[0][2]
    ends = [row.index(end) if end in row else 11 for row in whole]
    assert len(set(ends)) > 1
    longest = max(ends) + 1
    for pad, filled in ((PAD, PAD), (0, 0), (None, end)):
        found = model.generate(prompts, max_new_tokens=12, eos_token_id=[end, 99], pad_token_id=pad)[:, 3:].tolist()
        expected = [row[: at + 1] + [filled] * (longest - at - 1) for row, at in zip(whole, ends)]
        assert found == expected
    assert model.generate([[5, 6, 7]], max_new_tokens=12, eos_token_id=end).shape == (1, 6)


def test_without_inputs_the_row_is_bos(model: Any) -> None:
    assert model.generate(bos_token_id=5, **SETTINGS).tolist() == model.generate([[5]], **SETTINGS).tolist()
    assert model.generate(bos_token_id=PAD, **SETTINGS)[0, 0] == PAD
    with pytest.raises(ArgumentError, match="no BOS token"):
        model.generate(**SETTINGS)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"inputs": "hello"}, "input_ids are texts"),
    "texts": ({"inputs": ["hello", "you"]}, "input_ids are texts"),
    "numbers": ({"inputs": torch.ones(1, 3)}, "type float32. Pass integers"),
    "a number among them": ({"inputs": [[1, 2.5]]}, "type float64. Pass integers"),
    "three dimensions": ({"inputs": torch.ones(1, 2, 3, dtype=torch.long)}, r"shape \(1, 2, 3\)"),
    "lists too deep": ({"inputs": [[[1, 2], [3, 4]]]}, "nested too deeply"),
    "uneven depth": ({"inputs": [[1, [2, 3]]]}, "input_ids make no array"),
    "no rows": ({"inputs": []}, "there is no row in input_ids"),
    "no rows in a tensor": ({"inputs": torch.zeros(0, 3, dtype=torch.long)}, "there is no row in input_ids"),
    "no tokens": ({"inputs": [[]]}, "row 0 of input_ids has no tokens"),
    "an empty row": ({"inputs": [[4], []]}, "row 1 of input_ids has no tokens"),
    "a masked row": ({"inputs": [[4, 5], [6, 7]], "attention_mask": [[1, 1], [0, 0]]}, "row 1 of input_ids"),
    "a short mask": ({"inputs": [ROW], "attention_mask": [[1, 1]]}, r"attention_mask has shape \(1, 2\)"),
    "a mask of other rows": ({"inputs": [ROW, [4]], "attention_mask": [[1] * 3, [1] * 3]}, "attention_mask"),
    "a wide mask": ({"inputs": torch.tensor([ROW]), "attention_mask": torch.ones(1, 4)}, "attention_mask has shape"),
    "an unknown token": ({"inputs": [[4, 37]]}, "token 37, and the model's vocabulary is 0 to 36"),
    "a negative token": ({"inputs": [[-100, 4]]}, "token -100"),
    "ids twice": ({"inputs": [ROW], "input_ids": [ROW]}, "input_ids was given twice"),
    "a mask twice": (
        {"inputs": {"input_ids": [ROW], "attention_mask": [[1] * 3]}, "attention_mask": [[1] * 3]},
        "attention_mask was given twice",
    ),
    "embeddings": ({"inputs_embeds": torch.ones(1, 2, 16)}, "inputs_embeds is not taken"),
    "positions": ({"inputs": [ROW], "position_ids": torch.arange(3)[None]}, "position_ids is not taken"),
    "a cache": ({"inputs": [ROW], "past_key_values": object()}, "past_key_values is a object, not a cache"),
    "pixels": ({"inputs": {"input_ids": [ROW], "pixel_values": 1}}, "pixel_values"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_what_cannot_be_continued_is_refused(model: Any, case: tuple[dict[str, Any], str]) -> None:
    arguments, message = case
    with pytest.raises(ArgumentError, match=message):
        model.generate(**arguments, **SETTINGS)


def test_what_a_tokenizer_returns(shared_data: Path) -> None:
    model = loquent.AutoModelForCausalLM.from_pretrained(shared_data / "models" / "stories260k")
    tokenizer = loquent.AutoTokenizer.from_pretrained(shared_data / "models" / "stories260k")
    texts = ["Once upon a time", "Lily"]
    settings = {"max_new_tokens": 8, "do_sample": False}
    rows = [
        model.generate(tokenizer(text, return_tensors="pt"), **settings)[
            0, len(tokenizer(text)["input_ids"]) :
        ].tolist()
        for text in texts
    ]
    tokenizer.pad_token_id = 0
    for side in ("left", "right"):
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
        width = batch["input_ids"].shape[1]
        assert model.generate(batch, **settings)[:, width:].tolist() == rows
        assert model.generate(**batch, **settings)[:, width:].tolist() == rows
        arrays = tokenizer(texts, return_tensors="np", padding=True, padding_side=side)
        assert model.generate(**arrays, **settings)[:, width:].tolist() == rows
    ragged = tokenizer(texts)
    assert model.generate(ragged, **settings)[:, -8:].tolist() == rows
    assert model.generate(**ragged, **settings)[:, -8:].tolist() == rows
