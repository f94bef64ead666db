"""The model in the package: it writes, and what its card says of it is true."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loquent import AutoModelForCausalLM, AutoTokenizer, DogeForCausalLM
from loquent.text.loading import default_model

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROMPTS = ("Once upon a time", "The king said to his daughter,", '"Where are you going?" asked')


@pytest.fixture(scope="module")
def model() -> DogeForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(default_model())
    assert isinstance(loaded, DogeForCausalLM)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(default_model())


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((default_model() / "metrics.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def corpus(shared_data: Path) -> Iterator[Any]:
    """The text as training reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        from default_model.corpus import read_corpus

        yield read_corpus(shared_data / "text" / "stories.txt.xz")


def _write(model: DogeForCausalLM, tokenizer: Any, prompt: str, **settings: Any) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    text: str = tokenizer.decode(model.generate(**inputs, **settings)[0], skip_special_tokens=True)
    return text


def test_a_seed_decides_the_text(model: DogeForCausalLM, tokenizer: Any) -> None:
    first, again, other = (_write(model, tokenizer, PROMPTS[0], max_new_tokens=40, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert first.startswith(PROMPTS[0])
    assert len(first.split()) > 20


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_transformers(model: DogeForCausalLM, tokenizer: Any, prompt: str) -> None:
    """Far enough to leave the attention window behind."""
    from transformers import AutoModelForCausalLM as TheirModel
    from transformers import AutoTokenizer as TheirTokenizer

    folder = str(default_model())
    theirs = TheirModel.from_pretrained(folder, attn_implementation="eager")
    inputs = TheirTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    assert tokenizer(prompt)["input_ids"] == inputs["input_ids"][0].tolist()
    expected = theirs.generate(
        **inputs, do_sample=False, temperature=1.0, top_k=50, top_p=1.0, min_new_tokens=300, max_new_tokens=300
    )
    ours = model.generate(inputs["input_ids"], do_sample=False, min_new_tokens=300, max_new_tokens=300)
    assert ours.tolist() == expected.tolist()
    with torch.no_grad():
        torch.testing.assert_close(model(ours).logits, theirs(ours).logits, atol=1e-4, rtol=0)


def test_held_out_text_costs_no_more_than_the_card_says(
    model: DogeForCausalLM, tokenizer: Any, corpus: Any, metrics: dict[str, Any]
) -> None:
    from default_model.evaluation import bits
    from default_model.vocabulary import encode_documents

    documents = corpus.held_out[:10]
    tokens = encode_documents(tokenizer.backend_tokenizer, documents)
    cost = bits(model, tokens, model.config.sliding_window) / sum(len(document.encode()) for document in documents)
    assert 0.8 * metrics["bits_per_byte"] < cost <= metrics["bits_per_byte"]


def test_nine_words_in_ten_are_words_it_read(
    model: DogeForCausalLM, tokenizer: Any, corpus: Any, metrics: dict[str, Any]
) -> None:
    from default_model.evaluation import known_words, openings, word_list, write

    texts = write(model, tokenizer, openings(corpus.held_out, 12), seed=100, max_new_tokens=120)
    found = known_words(texts, word_list(corpus.train))
    assert found["written_words"] > 500
    assert found["known_words"] > 0.9
    assert metrics["known_words"] > 0.9


def test_the_held_out_books_are_not_in_the_training_text(corpus: Any, metrics: dict[str, Any]) -> None:
    read = {line for document in corpus.train for line in document.split("\n") if len(line) >= 60}
    held_out = [line for document in corpus.held_out for line in document.split("\n") if len(line) >= 60]
    assert len(held_out) > 1000
    assert not read.intersection(held_out)
    assert metrics["held_out_bytes"] == sum(len(document.encode()) for document in corpus.held_out)
    assert metrics["train_bytes"] == sum(len(document.encode()) for document in corpus.train)


def test_the_trigram_it_is_compared_with_is_a_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from default_model.trigram import Trigram

    symbols = np.random.default_rng(0).zipf(1.5, 2000) % 7
    counted = Trigram(symbols, 7)
    for context in ((0, 1), (3, 3), (6, 5)):
        probabilities = [2 ** -counted.bits(np.array([*context, symbol])) for symbol in range(7)]
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-9)
    assert counted.bits(symbols) / 1998 < np.log2(7)


def test_the_card_says_what_was_measured(model: DogeForCausalLM, metrics: dict[str, Any]) -> None:
    card = (default_model() / "README.md").read_text(encoding="utf-8")
    assert metrics["bits_per_byte"] < metrics["token_trigram_bits_per_byte"] < metrics["byte_trigram_bits_per_byte"]
    for name in ("bits_per_byte", "token_trigram_bits_per_byte", "byte_trigram_bits_per_byte"):
        assert f"{metrics[name]}" in card
    for name in ("parameters", "written_words", "held_out_bytes", "train_tokens"):
        assert f"{metrics[name]:,}" in card
    assert f"{metrics['known_words']:.1%}" in card
    assert metrics["parameters"] == model.num_parameters()


def test_it_is_small_and_its_generation_config_samples(model: DogeForCausalLM) -> None:
    assert sum(file.stat().st_size for file in default_model().iterdir()) < 8_000_000
    assert model.dtype == torch.float32
    assert model.generation_config.do_sample
    assert model.generation_config.eos_token_id == model.config.eos_token_id == 0
