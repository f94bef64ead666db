"""Perplexity of texts of any length: transformers' numbers for each token, whatever the windows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent.errors import ArgumentError
from loquent.evaluation import Perplexity, document_of, measured, perplexity
from loquent.evaluation.windows import sizes, windows
from loquent.native import why_unavailable

TEXT = "Once upon a time there was a little café. A cat lived in it, and a dog.\n" * 2
OTHER = "One day, a girl named Lily went to the park."


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "models/stories260k"


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return loquent.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def expected(theirs: Any, ids: list[int], contexts: list[int]) -> float:
    """The sum of each token's log-probability behind the `contexts[token]` tokens before it, one pass for each."""
    total = 0.0
    with torch.no_grad():
        for at in range(1, len(ids)):
            seen = torch.tensor([ids[at - contexts[at] : at]])
            total += theirs(seen).logits[0, -1].double().log_softmax(-1)[ids[at]].item()
    return total


@pytest.mark.parametrize(("length", "stride"), [(None, None), (16, 16), (16, 8), (16, 5), (16, 1), (1, 1)])
def test_each_token_scores_what_transformers_says_behind_its_context(
    model: Any, theirs: Any, length: int | None, stride: int | None
) -> None:
    ids = model.tokenizer(TEXT)["input_ids"]
    assert ids[0] == model.tokenizer.bos_token_id
    # By the definition: windows end at 1 + length, 1 + length + stride, ... and begin as early as they can.
    whole = length or 512
    contexts, end = [0] * len(ids), whole + 1
    for at in range(len(ids)):
        while at >= end:
            end = min(len(ids), end + (stride or 256))
        contexts[at] = at - max(0, end - whole - 1)
    found = perplexity(model, TEXT, length=length, stride=stride)
    assert found.log_probability == pytest.approx(expected(theirs, ids, contexts), abs=len(ids) * 1e-4)
    assert (found.tokens, found.documents) == (len(ids) - 1, 1)


def test_it_is_the_sum_of_scores(model: Any) -> None:
    scores = [model.score(text) for text in (TEXT, OTHER)]
    found = perplexity(model, [TEXT, "", OTHER])
    total, tokens = sum(score.total for score in scores), sum(len(score.ids) for score in scores)
    size = len((TEXT + OTHER).encode())
    assert found.log_probability == pytest.approx(total, abs=1e-3)
    assert (found.tokens, found.bytes, found.documents) == (tokens, size, 2)
    assert found.words == len(TEXT.split()) + len(OTHER.split())
    assert found.perplexity == pytest.approx(math.exp(-total / tokens), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(-total / math.log(2) / size, rel=1e-5)
    assert found.word_perplexity == pytest.approx(math.exp(-total / found.words), rel=1e-5)
    apart = perplexity(model, TEXT) + perplexity(model, OTHER)
    assert apart.log_probability == pytest.approx(found.log_probability, abs=1e-3)
    assert apart.tokens == found.tokens


def test_ends_are_scored_where_they_count(model: Any, theirs: Any) -> None:
    ids = [*model.tokenizer(OTHER)["input_ids"], model.tokenizer.eos_token_id]
    found, without = perplexity(model, OTHER, count_ends=True), perplexity(model, OTHER)
    assert found.log_probability == pytest.approx(expected(theirs, ids, list(range(len(ids)))), abs=1e-3)
    assert (found.tokens, found.bytes) == (without.tokens + 1, without.bytes)
    assert found.log_probability < without.log_probability
    assert perplexity(model, ["", OTHER], count_ends=True).documents == 2  # an empty one has an end too


def test_without_bos_the_first_token_is_only_read(model: Any, theirs: Any, folder: Path) -> None:
    tokenizer = loquent.AutoTokenizer.from_pretrained(folder, bos_token=None)
    tokenizer.bos_token = None
    bare = loquent.text.TextModel(model.model, tokenizer)
    ids = tokenizer(OTHER, add_special_tokens=False)["input_ids"]
    found = perplexity(bare, OTHER)
    assert found.log_probability == pytest.approx(expected(theirs, ids, list(range(len(ids)))), abs=1e-3)
    assert found.tokens == len(ids) - 1
    assert found.bytes < len(OTHER.encode())
    assert OTHER.encode().endswith(OTHER.encode()[-found.bytes :])


def test_only_what_counts_is_scored(model: Any) -> None:
    """Masks across windows: what a conversation's other turns said is read, and not scored."""
    document = document_of(model.tokenizer, TEXT)
    counts = document.counts.copy()
    counts[5:40] = False
    partly = type(document)(document.tokens, counts, 1, 1)
    masked = type(document)(document.tokens, document.counts & ~counts, 1, 1)
    options = {"length": 16, "stride": 4}
    whole, kept, left = (measured(model, [each], **options) for each in (document, partly, masked))
    assert kept.tokens + left.tokens == whole.tokens
    assert kept.log_probability + left.log_probability == pytest.approx(whole.log_probability, abs=1e-4)


def test_windows_score_every_token_once() -> None:
    for tokens in range(24):
        for length in range(1, 9):
            for stride in range(1, length + 1):
                cut = list(windows(tokens, length, stride))
                assert [at for window in cut for at in range(window.scored, window.stop)] == list(range(1, tokens))
                assert all(window.stop - window.first - 1 <= length for window in cut)
                assert all(window.first == 0 or window.scored - window.first > length - stride for window in cut)


def test_progress_ends_with_everything(model: Any) -> None:
    told: list[tuple[int, int]] = []
    found = perplexity(model, [TEXT, OTHER], length=16, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (found.tokens, found.tokens)
    assert len(told) > 3


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")
def test_precisions_and_stores_cost_something_small(folder: Path, model: Any) -> None:
    plain = perplexity(model, TEXT * 2).perplexity
    coarse = perplexity(loquent.load(folder, precision="int8"), TEXT * 2).perplexity
    quantized = perplexity(
        model, TEXT * 2, cache_implementation="quantized", cache_config={"nbits": 2, "residual_length": 16}
    ).perplexity
    for found in (coarse, quantized):
        assert found != plain
        assert found == pytest.approx(plain, rel=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 513}, r"length=513 .* positions \(512\)"),
        ({"length": 0}, "length=0"),
        ({"length": 8, "stride": 9}, r"stride=9 .* length \(8\)"),
        ({"stride": 0}, "stride=0"),
        ({"texts": [""]}, "no token that follows another"),
        ({"texts": []}, "no token that follows another"),
        ({"texts": [3]}, "texts has a int, 3"),
        ({"cache_implementation": "imaginary"}, "cache_implementation='imaginary'"),
    ],
)
def test_what_cannot_be_measured_is_said(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        perplexity(model, **{"texts": TEXT, **arguments})


def test_sizes_follow_the_model() -> None:
    assert sizes(512, None, None) == (512, 256)
    assert sizes(100_000, None, None) == sizes(None, None, None) == (2048, 1024)
    assert sizes(100_000, 4096, None) == (4096, 2048)
    assert sizes(None, 1, None) == (1, 1)


def test_what_is_too_unlikely_for_a_float_is_infinite() -> None:
    found = Perplexity(-1e6, 1000, 10, 1, 1)
    assert found.perplexity == math.inf
    assert found.word_perplexity == math.inf
    assert found.bits_per_byte == pytest.approx(1e5 / math.log(2))
    assert Perplexity(-1.0, 1, 0, 0, 1).bits_per_byte == math.inf
