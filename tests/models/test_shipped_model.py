"""The models in the package: they write and chat, the one drafts for the other, and what their cards say is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent import AutoModelForCausalLM, AutoTokenizer, DogeForCausalLM
from loquent.decoding.trace import Drafted
from loquent.text import TextModel, default_model

SCRIPTS = Path(__file__).parents[2] / "scripts"
PROMPTS = ("Once upon a time", "The king said to his daughter,", '"Where are you going?" asked')
MESSAGE = [{"role": "user", "content": "Have you seen any good movies lately?"}]
BOTH = ("default", "default-draft")


@pytest.fixture(scope="module")
def model() -> DogeForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(default_model())
    assert isinstance(loaded, DogeForCausalLM)
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(default_model())


@pytest.fixture(scope="module")
def text_model() -> TextModel:
    return loquent.load()


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((default_model() / "metrics.json").read_text(encoding="utf-8"))
    return read


def test_a_seed_decides_the_text(text_model: TextModel) -> None:
    first, again, other = (text_model.generate(PROMPTS[0], max_new_tokens=40, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    assert len(first.split()) > 15


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_transformers(model: DogeForCausalLM, tokenizer: Any, prompt: str) -> None:
    from transformers import AutoModelForCausalLM as TheirModel
    from transformers import AutoTokenizer as TheirTokenizer

    folder = str(default_model())
    theirs = TheirModel.from_pretrained(folder, attn_implementation="eager")
    inputs = TheirTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    assert tokenizer(prompt)["input_ids"] == inputs["input_ids"][0].tolist()
    expected = theirs.generate(
        **inputs, do_sample=False, temperature=1.0, top_k=50, top_p=1.0, min_new_tokens=200, max_new_tokens=200
    )
    ours = model.generate(inputs["input_ids"], do_sample=False, min_new_tokens=200, max_new_tokens=200)
    assert ours.tolist() == expected.tolist()


def test_behind_the_window_its_scores_are_those_of_transformers(model: DogeForCausalLM) -> None:
    from transformers import AutoModelForCausalLM as TheirModel

    ids = torch.randint(8, 8192, (1, 600), generator=torch.Generator().manual_seed(1))
    theirs = TheirModel.from_pretrained(str(default_model()), attn_implementation="eager")
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, atol=2e-4, rtol=0)


def test_a_chat_is_written_as_transformers_writes_it(text_model: TextModel) -> None:
    from transformers import AutoTokenizer as TheirTokenizer

    theirs = TheirTokenizer.from_pretrained(str(default_model()))
    messages = [{"role": "system", "content": "Be kind."}, *MESSAGE, {"role": "assistant", "content": "Yes!"}, *MESSAGE]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True)
    assert text_model.chat_ids(messages) == expected


def test_it_answers_and_stops(text_model: TextModel) -> None:
    for seed in range(5):
        events = list(text_model.chat_events(MESSAGE, seed=seed, max_new_tokens=200))
        answer = "".join(event.text for event in events)
        assert len(answer.split()) > 1
        assert "<|" not in answer
        assert events[-1].finished == "eos"


def test_its_draft_changes_nothing_but_the_passes(text_model: TextModel) -> None:
    drafting = {
        "assistant_model": loquent.load("default-draft").model,
        "assistant_confidence_threshold": 0.0,
        "num_assistant_tokens": 3,
        "num_assistant_tokens_schedule": "constant",
    }
    accepted = drafted = 0
    for prompt in PROMPTS:
        plain = {"do_sample": False, "max_new_tokens": 100}
        news = list(text_model.events([prompt], output_trace=True, **plain, **drafting))
        assert "".join(event.text for event in news) == text_model.generate(prompt, **plain)
        rounds = [told for event in news for told in event.trace if isinstance(told, Drafted)]
        accepted += sum(each.accepted for each in rounds)
        drafted += sum(len(each.drafts) for each in rounds)
    assert accepted > 0.25 * drafted > 0


def test_the_draft_has_the_same_tokenizer() -> None:
    first, second = (default_model(name) / "tokenizer.json" for name in BOTH)
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_of_the_same_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loquent.load("default").tokenizer.vocab_size == 8192
    (tmp_path / "default").mkdir()
    with pytest.raises(loquent.errors.LoquentError, match="default"):
        loquent.load("default")


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_held_out_text_costs_what_the_card_says(
    name: str, metrics: dict[str, Any], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from default_model import measures
    from default_model.recipe import Places
    from default_model.text_files import write_corpus

    assert write_corpus(shared_data / "text", tmp_path / "corpus") == metrics["corpus"]
    found = measures.held_out(default_model(name), Places(tmp_path))
    for kind in ("stories", "dialogues"):
        assert found[kind] == pytest.approx(metrics[name][kind])


@pytest.mark.parametrize("kind", ["stories", "dialogues"])
def test_it_beats_the_better_of_two_5_gram_models(kind: str, metrics: dict[str, Any]) -> None:
    ngrams = [metrics["kneser_ney"][f"trained_on_{text}"][kind] for text in (kind, "both")]
    for found in ngrams:
        # The same events of the same text.
        assert (found["events"], found["text_bytes"]) == tuple(
            metrics["default"][kind][n] for n in ("tokens", "text_bytes")
        )
    best = min(found["bits_per_byte"] for found in ngrams)
    assert metrics["default"][kind]["bits_per_byte"] < 0.95 * best


@pytest.mark.parametrize("name", BOTH)
def test_the_card_says_what_was_measured(name: str, metrics: dict[str, Any]) -> None:
    card = (default_model(name) / "README.md").read_text(encoding="utf-8")
    for kind in ("stories", "dialogues"):
        assert f"{metrics[name][kind]['bits_per_byte']:.3f}" in card
        assert f"({metrics[name][kind]['perplexity']:.1f})" in card
    assert f"{metrics[name]['parameters']:,}" in card
    loaded = AutoModelForCausalLM.from_pretrained(default_model(name))
    assert loaded.num_parameters() == metrics[name]["parameters"]
    assert json.loads((default_model(name) / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_they_are_small_and_sample(model: DogeForCausalLM) -> None:
    files = [file for name in BOTH for file in default_model(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 24 << 20
    assert model.dtype == torch.float32
    assert model.generation_config.do_sample
    assert model.generation_config.eos_token_id == [0, 5]
    assert 8_000_000 <= model.num_parameters() <= 20_000_000
