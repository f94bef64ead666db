"""Beams of all kinds on each family: the results of transformers on torch, and the same ones on the native core."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints import SWITCHES, MakePair
from random_weights import ids

from loquent.native import why_unavailable

ASKED: dict[str, dict[str, Any]] = {
    "search": {},
    "sampling": {"do_sample": True, "seed": [3, 4], "temperature": 1.5},
    "diverse": {"num_beam_groups": 2, "diversity_penalty": 0.6},
    "constrained": {"force_words_ids": [[5, 6], [[7], [8, 9]]]},
}
ENDS = [11, 12, 13]


@pytest.mark.parametrize("family", sorted(SWITCHES))
def test_results_are_those_of_transformers_on_both_backends(
    make_pair: MakePair, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair(family, next(iter(SWITCHES[family])))
    prompts = ids(2, 9, seed=5)
    common: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 8, "pad_token_id": 0}
    common |= {"eos_token_id": ENDS, "no_repeat_ngram_size": 0}
    found: dict[str, dict[str, Any]] = {}
    for backend, native in (("torch", "0"), ("native", "1")):
        if native == "1" and why_unavailable() is not None:
            continue
        monkeypatch.setenv("LOQUENT_NATIVE", native)
        assert pair.ours.describe_backend().startswith(backend)
        found[backend] = {
            name: pair.ours.generate(prompts, **{"do_sample": False, **common, **asked}).tolist()
            for name, asked in ASKED.items()
        }
    assert found.get("native", found["torch"]) == found["torch"]
    for name, asked in ASKED.items():
        for row in range(2 if name != "sampling" else 0):
            prompt = prompts[row : row + 1]
            mask = torch.ones_like(prompt)
            theirs = pair.theirs.generate(prompt, attention_mask=mask, **{"do_sample": False, **common, **asked})
            ours = found["torch"][name][2 * row : 2 * row + 2]
            assert [cut(tokens) for tokens in ours] == [cut(tokens) for tokens in theirs.tolist()]


def cut(row: list[int]) -> list[int]:
    """What was generated, up to an end token, in place of which transformers' older beams write the first of them."""
    new = row[9:]
    stop = next((place for place, token in enumerate(new) if token in ENDS), len(new))
    return new[:stop] + ENDS[:1] * (stop < len(new))
