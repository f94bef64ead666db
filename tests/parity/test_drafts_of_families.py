"""Speculation of every family: early exit, lookup and the model itself as its assistant change no token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import Pair

PROMPTS = [[3, 4, 5, 6, 3, 4], [7, 8], [20, 9, 9, 9, 12, 8, 9, 9]]
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "guidance": {"guidance_scale": 1.7},
    "contrasted layers": {"dola_layers": "high"},
    "rules": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
}
CONSTANT: dict[str, Any] = {"num_assistant_tokens": 3, "num_assistant_tokens_schedule": "constant"}


@pytest.mark.parametrize("name", ASKED)
def test_drafts_change_no_token(name: str, pair: Pair) -> None:
    asked = {"max_new_tokens": 14, "pad_token_id": 1, "eos_token_id": None, "do_sample": False, **ASKED[name]}
    plain = pair.ours.generate(PROMPTS, **asked)
    early: dict[str, Any] = {"assistant_early_exit": 1, "assistant_confidence_threshold": 0.0, **CONSTANT}
    for drafts in (
        *([early] if len(pair.ours.decoder.blocks) > 1 else []),
        {"assistant_model": pair.ours, "assistant_confidence_threshold": 0.0, **CONSTANT},
        {"prompt_lookup_num_tokens": 3, **CONSTANT},
    ):
        assert torch.equal(pair.ours.generate(PROMPTS, **asked, **drafts), plain), drafts
