"""Trained weights: every greedy token of the reference is our model's best one too."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from loquent.torch.classes import AutoModelForCausalLM


@pytest.mark.parametrize("name", ["stories260k", "babyllama105"])
def test_greedy_tokens_are_those_of_the_reference(name: str, shared_data: Path) -> None:
    reference = json.loads((shared_data / "reference" / "trained_models_transformers_5.23.json").read_text())[name]
    model = AutoModelForCausalLM.from_pretrained(shared_data / "models" / name)
    ids = torch.tensor([reference["greedy"]["ids"]])
    start = len(reference["prompt_ids"])
    with torch.no_grad():
        best = model(ids).logits.argmax(-1)
    assert ids.shape[1] > start
    assert best[0, start - 1 : -1].tolist() == ids[0, start:].tolist()


def test_the_sorting_model_sorts_everything(shared_data: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(shared_data / "models" / "gpt-nano-sort")
    letters = torch.tensor(list(product(range(3), repeat=6)))
    ids = torch.cat([letters, letters.sort(1).values], 1)
    with torch.no_grad():
        best = model(ids[:, :-1]).logits.argmax(-1)
    assert torch.equal(best[:, 5:], ids[:, 6:])
