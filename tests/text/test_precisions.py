"""How much quantizing costs: perplexity on text that neither model learned from."""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import pytest

import loquent
from loquent.native import why_unavailable
from loquent.text import TextModel, default_model

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")

_PIECE = 700  # characters, which fit into either model's positions


def perplexity(model: TextModel, text: str) -> float:
    """Of pieces of the text, each read from its beginning."""
    scores = [model.score(text[start : start + _PIECE]) for start in range(0, len(text) - _PIECE + 1, _PIECE)]
    return math.exp(-sum(score.total for score in scores) / sum(len(score.ids) for score in scores))


def growth(folder: Path, text: str) -> dict[str, float]:
    """By what share each precision's perplexity is above that of float32."""
    exact = perplexity(loquent.load(folder, precision="float32"), text)
    return {
        precision: perplexity(loquent.load(folder, precision=precision), text) / exact - 1
        for precision in ("bfloat16", "float16", "int8", "int4")
    }


def check(found: dict[str, float], int4: float) -> None:
    assert abs(found["bfloat16"]) < 0.002
    assert abs(found["float16"]) < 0.001
    assert abs(found["int8"]) < 0.005
    assert -0.02 < found["int4"] < int4


@pytest.fixture(scope="module")
def fiction(shared_data: Path) -> str:
    """The beginning of a collection that no model here was trained on."""
    with lzma.open(shared_data / "text/fiction.txt.xz", "rt", encoding="utf-8") as file:
        return file.read(400_000)


def test_on_a_little_text(fiction: str, shared_data: Path) -> None:
    check(growth(default_model(), fiction[:30_000]), 0.05)
    check(growth(shared_data / "models/stories260k", fiction[:30_000]), 0.12)


@pytest.mark.slow
def test_on_much_text(fiction: str, shared_data: Path) -> None:
    check(growth(default_model(), fiction), 0.05)
    check(growth(shared_data / "models/stories260k", fiction), 0.12)
