"""Rotary frequencies against the functions that transformers computes them with."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from loquent.parts import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    RotaryScaling,
    YarnScaling,
)
from loquent.rotary import frequencies, table_key

POSITIONS, ORIGINAL = 256, 64
SHORT = tuple(1.0 + 0.1 * i for i in range(8))
LONG = tuple(1.5 + 0.7 * i for i in range(8))

Case = tuple[RotaryScaling | None, dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "default": (None, {"rope_type": "default"}, {}),
    "linear": (LinearScaling(4.0), {"rope_type": "linear", "factor": 4.0}, {}),
    "dynamic": (DynamicScaling(3.0, POSITIONS), {"rope_type": "dynamic", "factor": 3.0}, {}),
    "yarn": (YarnScaling(4.0, POSITIONS), {"rope_type": "yarn", "factor": 4.0}, {}),
    "yarn, original length": (
        YarnScaling(POSITIONS / ORIGINAL, ORIGINAL, beta_fast=8.0, beta_slow=0.5, mscale=0.8, mscale_all_dim=1.3),
        {
            "rope_type": "yarn",
            "factor": POSITIONS / ORIGINAL,
            "original_max_position_embeddings": ORIGINAL,
            "beta_fast": 8.0,
            "beta_slow": 0.5,
            "mscale": 0.8,
            "mscale_all_dim": 1.3,
        },
        {},
    ),
    "yarn, untruncated": (
        YarnScaling(4.0, POSITIONS, attention_factor=1.7, truncate=False),
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.7, "truncate": False},
        {},
    ),
    "longrope": (
        LongRopeScaling(SHORT, LONG, ORIGINAL),
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG},
        {"original_max_position_embeddings": ORIGINAL},
    ),
    "longrope, factor": (
        LongRopeScaling(SHORT, LONG, POSITIONS, factor=2.0),
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 2.0},
        {},
    ),
    "longrope, attention factor": (
        LongRopeScaling(SHORT, LONG, ORIGINAL, attention_factor=0.9),
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "attention_factor": 0.9},
        {"original_max_position_embeddings": ORIGINAL},
    ),
    "llama3": (
        Llama3Scaling(8.0, 1.0, 4.0, ORIGINAL),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
        {},
    ),
}


def _theirs(scaling: dict[str, Any], extra: dict[str, Any], theta: float, span: int) -> tuple[list[float], float]:
    config = SimpleNamespace(
        rope_theta=theta,
        rope_scaling=scaling,
        head_dim=32,
        partial_rotary_factor=0.5,
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        **extra,
    )
    frequency, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, torch.device("cpu"), seq_len=span)
    return frequency.double().tolist(), float(factor)


@pytest.mark.parametrize("span", [1, ORIGINAL, ORIGINAL + 1, POSITIONS, POSITIONS + 1, 3 * POSITIONS])
@pytest.mark.parametrize("theta", [10000.0, 500.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_transformers(case: Case, theta: float, span: int) -> None:
    scaling, theirs, extra = case
    expected, expected_factor = _theirs(theirs, extra, theta, span)
    found, factor = frequencies(Rotary(16, theta, POSITIONS, scaling), span)
    assert found == pytest.approx(expected, rel=1e-5)
    assert factor == pytest.approx(expected_factor, rel=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equal_keys_mean_equal_frequencies_and_no_others(case: Case) -> None:
    rotary = Rotary(16, 10000.0, POSITIONS, case[0])
    by_key: dict[Any, Any] = {}
    for span in (1, ORIGINAL, ORIGINAL + 1, POSITIONS, POSITIONS + 1, POSITIONS + 2, 900):
        by_key.setdefault(table_key(rotary, span), []).append(frequencies(rotary, span))
    assert all(found == group[0] for group in by_key.values() for found in group)
    firsts = [group[0] for group in by_key.values()]
    assert all(a != b for i, a in enumerate(firsts) for b in firsts[:i])


def test_dynamic_scaling_keeps_the_fastest_pair_and_stretches_the_slowest_by_the_excess() -> None:
    scaling = DynamicScaling(2.0, 100)
    plain, _ = frequencies(Rotary(8, 10000.0, 100), 300)
    found, _ = frequencies(Rotary(8, 10000.0, 100, scaling), 300)
    assert found[0] == plain[0] == 1.0
    assert plain[-1] / found[-1] == pytest.approx(2 * 300 / 100 - 1)


def test_an_odd_number_of_dimensions_is_rounded_up_to_whole_pairs() -> None:
    found, _ = frequencies(Rotary(3, 10000.0, 100), 10)
    assert found == pytest.approx([1.0, math.exp(-2 / 3 * math.log(10000.0))])
