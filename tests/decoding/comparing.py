"""Compares beams with transformers' older kinds, a row at a time: what was generated, without padding, and scores."""

from __future__ import annotations

from typing import Any

import torch

PAD = 1
PROMPTS = [[3, 4, 5, 6], [7, 7], [30, 2, 9, 9, 9, 12, 8]]


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """What both are asked for; None leaves an argument out."""
    defaults = {"num_beams": 4, "max_new_tokens": 9, "do_sample": False, "eos_token_id": 2, "pad_token_id": PAD}
    return {name: value for name, value in {**defaults, **asked}.items() if value is not None}


def unpadded(row: list[int], prompt: int, chosen: dict[str, Any]) -> list[int]:
    """What was generated, up to an end token, in place of which transformers' older beams write the first of them."""
    ends = chosen.get("eos_token_id", [])
    ends = [ends] if isinstance(ends, int) else ends
    new = row[prompt:]
    stop = next((place for place, token in enumerate(new) if token in ends), len(new))
    return new[:stop] + ends[:1] * (stop < len(new))


def compare(ours: Any, theirs: Any, prompt: list[int], asked: dict[str, Any], **only_theirs: Any) -> list[list[int]]:
    """Asserts that both give the same sequences and scores; returns the sequences."""
    chosen, ids = arguments(asked), torch.tensor([prompt])
    expected, scores = _theirs(theirs, ids, {**chosen, **only_theirs})
    found = ours.generate(ids, return_dict_in_generate=True, **chosen)
    rows, wanted = (
        [unpadded(row, len(prompt), chosen) for row in made.tolist()] for made in (found.sequences, expected)
    )
    assert rows == wanted
    if scores is not None:
        torch.testing.assert_close(found.sequences_scores, scores, rtol=1e-5, atol=1e-4)
    return rows


def _theirs(model: Any, ids: torch.Tensor, chosen: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Their sequences and scores; no scores where constrained beams fall back, for which they cannot give any."""
    chosen["attention_mask"] = torch.ones_like(ids)
    try:
        made = model.generate(ids, return_dict_in_generate=True, output_scores=True, **chosen)
    except RuntimeError:
        return model.generate(ids, **chosen), None
    return made.sequences, made.sequences_scores
