"""Greedy continuations against transformers: the same ids, alone and in batches."""

from __future__ import annotations

from typing import Any

import torch
from checkpoints import Pair
from random_weights import ids

NEW = 10


def _prompt_length(pair: Pair) -> int:
    # Past the original length, transformers changes frequencies from step to step, and we do not.
    return 5 if pair.depends_on_length else 14


def _greedy(pair: Pair) -> dict[str, Any]:
    distinct = {"no_repeat_ngram_size": 1} if "keep_window_size" in pair.switches else {}  # see `ids`
    return {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **distinct}


def test_greedy_ids(pair: Pair) -> None:
    prompt = ids(1, _prompt_length(pair), seed=3)
    expected = pair.theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **_greedy(pair))
    found = pair.ours.generate(prompt, attention_mask=torch.ones_like(prompt), **_greedy(pair))
    assert found.tolist() == expected.tolist()


def test_greedy_ids_of_a_padded_batch_equal_transformers_alone(pair: Pair) -> None:
    length = _prompt_length(pair)
    prompts, mask = ids(3, length, seed=4), torch.ones(3, length, dtype=torch.long)
    mask[1, : length - 2] = 0
    mask[2, :1] = 0
    found = pair.ours.generate(prompts, attention_mask=mask, **_greedy(pair))
    for row in range(3):
        alone = prompts[row : row + 1, mask[row].bool()]
        expected = pair.theirs.generate(alone, attention_mask=torch.ones_like(alone), **_greedy(pair))
        assert found[row, length:].tolist() == expected[0, alone.shape[1] :].tolist()
