"""What `generate()` of transformers 5.23 gives (`make_golden_strategies_5_23.py` wrote it), token for token.

Each prompt alone and all of them as a batch, on torch and on the native core.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loquent
from loquent.decoding.arrays import to_numpy
from loquent.decoding.rules import Context, Epsilon, Eta, MinP, Rule, TopH, Typical, apply_rules
from loquent.native import why_unavailable

GOLDEN = Path(__file__).parent / "golden"
FOUND: dict[str, Any] = json.loads((GOLDEN / "strategies.json").read_text())
PAD: int = FOUND["pad"]
PROMPTS: list[list[int]] = FOUND["prompts"]
MODELS = sorted({case["model"] for case in FOUND["cases"]})
NAMES = [case["name"] for case in FOUND["cases"] if case["model"] == MODELS[0]]
RULES: dict[str, type[Rule]] = {
    "typical_p": Typical,
    "min_p": MinP,
    "eta_cutoff": Eta,
    "epsilon_cutoff": Epsilon,
    "top_h": TopH,
}


@cache
def _model(name: str) -> Any:
    return loquent.AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32)


def _padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids = [[PAD] * (width - len(prompt)) + prompt for prompt in prompts]
    return torch.tensor(ids), torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])


def _compare(case: dict[str, Any], prompts: list[list[int]], rows: list[dict[str, Any]]) -> None:
    """Asserts that a batch of prompts gives these rows."""
    asked = {**FOUND["defaults"], **case["asked"]}
    if "assistant" in asked:
        asked["assistant_model"] = _model(asked.pop("assistant"))
    ids, mask = _padded(prompts)
    made = _model(case["model"]).generate(
        ids, attention_mask=mask, return_dict_in_generate=True, output_scores=True, **asked
    )
    if asked["do_sample"]:
        for scores, row in zip(made.scores[0], rows):
            assert scores.isfinite().nonzero()[:, 0].tolist() == [token for token, _ in row["first"]]
            _close(scores[scores.isfinite()], [score for _, score in row["first"]])
        return
    expected = [tokens for row in rows for tokens in row["ids"]]
    new = made.sequences[:, ids.shape[1] :].tolist()
    assert new == [tokens + [PAD] * (len(new[0]) - len(tokens)) for tokens in expected]
    if "num_beams" in asked:
        _close(made.sequences_scores, [score for row in rows for score in row["scores"]])
        return
    for place, row in enumerate(rows):
        _close([made.scores[step][place, token] for step, token in enumerate(expected[place])], row["scores"][0])


def _close(found: Any, expected: list[float]) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_generating_gives_what_transformers_5_gives(
    backend: str, model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "native" and why_unavailable() is not None:
        pytest.skip(f"the native core is unavailable: {why_unavailable()}")
    monkeypatch.setenv("LOQUENT_NATIVE", "1" if backend == "native" else "0")
    assert _model(model).describe_backend().startswith(backend)
    (case,) = [case for case in FOUND["cases"] if (case["model"], case["name"]) == (model, name)]
    for prompt, row in zip(PROMPTS, case["rows"]):
        _compare(case, [prompt], [row])
    _compare(case, PROMPTS, case["rows"])


@pytest.mark.parametrize("make", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", RULES)
def test_rules_leave_of_fixed_rows_what_transformers_5_leaves(name: str, make: Any) -> None:
    rows = np.array(FOUND["rules"]["rows"], np.float32)
    contexts = [Context(np.array([1]), 1) for _ in rows]
    for each in FOUND["rules"]["left"][name]:
        rule: Any = RULES[name](each["setting"])
        found = to_numpy(apply_rules(make(rows.copy()), [(rule,)] * len(rows), contexts))
        for scores, row, left in zip(found, rows, each["left"]):
            assert np.flatnonzero(np.isfinite(scores)).tolist() == left
            np.testing.assert_array_equal(scores[left], row[left])
