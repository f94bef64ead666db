"""Models that somebody trained: the continuations that transformers 5.23 writes, and what they were made for."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent

STORIES = ["babyllama105", "stories260k"]


@pytest.mark.parametrize("strategy", ["greedy", "beam4"])
@pytest.mark.parametrize("name", STORIES)
def test_continuations_of_trained_models(shared_data: Path, name: str, strategy: str) -> None:
    references = json.loads((shared_data / "reference" / "trained_models_transformers_5.23.json").read_text())
    prompt: list[int] = references[name]["prompt_ids"]
    expected: dict[str, Any] = references[name][strategy]
    model = loquent.AutoModelForCausalLM.from_pretrained(shared_data / "models" / name)
    found = model.generate(torch.tensor([prompt]), **expected["arguments"])
    assert found.tolist() == [expected["ids"]]


def test_sorting_all_inputs_in_one_batch(shared_data: Path) -> None:
    model = loquent.AutoModelForCausalLM.from_pretrained(shared_data / "models" / "gpt-nano-sort")
    letters = list(product(range(3), repeat=6))
    prompts = torch.tensor(letters)
    found = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=6, do_sample=False)
    assert found[:, :6].tolist() == prompts.tolist()
    assert found[:, 6:].tolist() == [sorted(some) for some in letters]
