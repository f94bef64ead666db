"""`loquent.load`: text in and out, equal however it is asked for, and scores that equal transformers'."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent.errors import ArgumentError, CheckpointError, ContextLengthError, TemplateError
from loquent.generation import engine_of
from loquent.text.stops import StopCutter

PROMPT = "Once upon a time"
GREEDY = {"do_sample": False, "max_new_tokens": 40}


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    return shared_data / "models/stories260k"


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return loquent.load(folder, device="cpu")


def test_text_is_what_ids_decode_to(model: Any) -> None:
    inputs = model.tokenizer(PROMPT, return_tensors="pt")
    ids = model.model.generate(**inputs, **GREEDY)
    whole = model.tokenizer.decode(ids[0], skip_special_tokens=True)
    assert model.generate(PROMPT, return_full_text=True, **GREEDY) == whole
    assert PROMPT + model.generate(PROMPT, **GREEDY) == whole
    assert len(whole) > 60


def test_a_loaded_model_drafts_for_another(model: Any, folder: Path) -> None:
    plain = model.generate(PROMPT, **GREEDY)
    assert model.generate(PROMPT, assistant_model=loquent.load(folder, device="cpu"), **GREEDY) == plain


def test_alone_streamed_and_among_others_are_equal(model: Any) -> None:
    prompts = [PROMPT, "The dog", "A very big red ball was in the"]
    alone = [model.generate(prompt, **GREEDY) for prompt in prompts]
    assert model.generate(prompts, **GREEDY) == alone
    assert ["".join(model.stream(prompt, **GREEDY)) for prompt in prompts] == alone
    assert len(list(model.stream(PROMPT, **GREEDY))) > 10


def test_several_texts_of_a_prompt(model: Any) -> None:
    options = {"do_sample": True, "num_return_sequences": 3, "seed": 5, "max_new_tokens": 15}
    texts = model.generate(PROMPT, **options)
    assert len(set(texts)) == 3
    assert model.generate([PROMPT], **options) == [texts]
    assert model.generate(PROMPT, **GREEDY, num_return_sequences=None) == model.generate(PROMPT, **GREEDY)
    with pytest.raises(ArgumentError, match="num_return_sequences"):
        list(model.stream(PROMPT, **options))


@pytest.mark.parametrize("stop", [" park", "play out", ". One", ["never", "Lily. S"]])
def test_text_ends_before_a_stop_string(model: Any, stop: str | list[str]) -> None:
    whole = model.generate(PROMPT, do_sample=False, max_new_tokens=100)
    first = stop if isinstance(stop, str) else stop[1]
    expected = whole[: whole.index(first)]
    options = {"do_sample": False, "max_new_tokens": 100, "stop_strings": stop}
    assert model.generate(PROMPT, **options) == expected
    assert "".join(model.stream(PROMPT, **options)) == expected
    *_, last = model.events([PROMPT], **options)
    assert last.finished == "stop_string"


def test_the_default_length_is_256_or_what_fits(model: Any) -> None:
    long = model.tokenizer.decode(model.tokenizer("dog " * 400)["input_ids"][1:401])
    counts = dict.fromkeys((0, 1), 0)
    for event in model.events([PROMPT, long], do_sample=True, seed=1, eos_token_id=None):
        counts[event.row] += event.tokens
    # The last new token is never read, and needs no position.
    assert counts == {0: 256, 1: 513 - len(model.tokenizer(long)["input_ids"])}


def test_leaving_a_stream_gives_its_memory_back(model: Any) -> None:
    engine = engine_of(model.model)
    stream = model.stream(PROMPT, **GREEDY)
    next(stream)
    assert not engine.scheduler.idle
    stream.close()
    assert engine.scheduler.idle


def test_what_cannot_work_is_said(model: Any) -> None:
    with pytest.raises(ArgumentError, match="tempreature"):
        model.generate(PROMPT, tempreature=1)
    with pytest.raises(ArgumentError, match="prompt is a list"):
        model.stream([PROMPT])
    with pytest.raises(ArgumentError, match="prompt is a int"):
        model.generate([3])
    with pytest.raises(ContextLengthError):
        model.generate(PROMPT, max_new_tokens=1000)
    with pytest.raises(TemplateError, match="no chat template"):
        model.chat("Hello")
    assert model.generate([]) == []


def test_an_empty_prompt_begins_a_document(model: Any) -> None:
    ids = model.model.generate([[model.tokenizer.bos_token_id]], **GREEDY)
    assert model.generate("", **GREEDY) == model.tokenizer.decode(ids[0], skip_special_tokens=True)


def test_chat_answers_and_continues(model: Any) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    answer = model.chat("The dog", chat_template=template, **GREEDY)
    assert answer == model.generate("The dog", **GREEDY).lstrip()
    assert "".join(model.stream_chat("The dog", chat_template=template, **GREEDY)) == answer
    started = [{"role": "user", "content": "The dog"}, {"role": "assistant", "content": " was big"}]
    assert model.chat(started, chat_template=template, **GREEDY) == model.generate("The dog was big", **GREEDY).lstrip()


@pytest.mark.parametrize("given", ["", "Once upon a time,"])
def test_scores_equal_transformers(model: Any, folder: Path, given: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    text = " there was a café."
    score = model.score(text, given=given)
    ids = torch.tensor([model.tokenizer(given + text)["input_ids"]])
    with torch.no_grad():
        rows = theirs(ids).logits[0].double().log_softmax(-1)
    expected = [rows[at, token].item() for at, token in enumerate(ids[0, 1:].tolist())][-len(score.ids) :]
    assert score.log_probabilities == pytest.approx(expected, abs=1e-4)
    assert list(score.ids) == ids[0, -len(score.ids) :].tolist()
    assert "".join(score.tokens) == text
    assert score.total == pytest.approx(sum(expected), abs=1e-3)
    assert score.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-3)
    assert score.bits_per_byte == pytest.approx(-sum(expected) / math.log(2) / len(text.encode()), rel=1e-3)


def test_a_whole_is_as_likely_as_its_parts(model: Any) -> None:
    whole = model.score("Once upon a time, there was a dog")
    parts = [model.score("Once upon a time,"), model.score(" there was a dog", given="Once upon a time,")]
    assert whole.total == pytest.approx(sum(part.total for part in parts), abs=1e-4)
    with pytest.raises(ArgumentError, match="no token"):
        model.score("")
    with pytest.raises(ContextLengthError, match="512 positions"):
        model.score("dog " * 600)


def test_loading_says_what_is_wrong(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="precision='int3'"):
        loquent.load(folder, precision="int3")  # type: ignore[arg-type]
    assert loquent.load(folder, precision="bfloat16").model.dtype == "bfloat16"
    monkeypatch.setattr("loquent.text.loading.__file__", str(tmp_path / "text" / "loading.py"))
    with pytest.raises(CheckpointError, match="no default model"):
        loquent.load()


@pytest.mark.parametrize(
    ("pieces", "stops", "kept"),
    [
        (["ab", "c", "de"], ["cd"], "ab"),
        (["ab", "c", "x"], ["cd"], "abcx"),
        (["aXYb"], ["Y", "XY"], "a"),
        (["aa", "ab"], ["aab"], "a"),
        (["end"], ["ending"], "end"),
        (["abc"], [], "abc"),
        (["ab"], [""], "ab"),
    ],
)
def test_stop_strings_are_cut(pieces: list[str], stops: list[str], kept: str) -> None:
    cutter = StopCutter(stops)
    assert "".join([*map(cutter.push, pieces), cutter.flush()]) == kept


def test_an_engine_takes_texts(model: loquent.TextModel) -> None:
    engine = loquent.open_engine(model)
    [result] = engine.submit(PROMPT, **GREEDY).result()
    assert model.tokenizer.decode(list(result.tokens), skip_special_tokens=True) == model.generate(PROMPT, **GREEDY)
    assert engine.describe() == model.describe()
