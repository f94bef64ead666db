"""Perplexity of conversations: only what counts is scored, as transformers scores it behind all that stands before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import loquent
from loquent.errors import ArgumentError, TemplateError
from loquent.evaluation import conversation_documents, dialogue_perplexity
from loquent.text import TextModel
from loquent.training.data import Dialogue, JoinedByEos, Templated

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def dialogue(*turns: str) -> Dialogue:
    roles = ("user", "assistant")
    return Dialogue(tuple({"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)), "here")


DIALOGUES = [
    dialogue("Hello.", "A café was big."),
    dialogue("Once upon a time", "there was a dog.", "Yes?", "It had a red ball."),
]


@pytest.fixture(scope="module")
def model(shared_data: Path) -> TextModel:
    folder = shared_data / "models/stories260k"
    tokenizer = loquent.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    return TextModel(loquent.load(folder).model, tokenizer)


@pytest.fixture(scope="module")
def theirs(shared_data: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        shared_data / "models/stories260k", attn_implementation="eager"
    )


def gained(theirs: Any, tokenizer: Any, text: str, first: int) -> list[float]:
    """The log-probability of each token of a text from `first` on, in one pass."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        rows = theirs(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [rows[at - 1, ids[at]].item() for at in range(first, len(ids))]


def test_by_the_template_answers_are_scored(model: TextModel, theirs: Any) -> None:
    tokenizer = model.tokenizer
    expected: list[float] = []
    size = words = 0
    for each in DIALOGUES:
        for at, message in enumerate(each.messages):
            if message["role"] != "assistant":
                continue
            before = tokenizer.apply_chat_template(each.messages[:at], tokenize=False, add_generation_prompt=True)
            answer = message["content"]
            first = len(tokenizer(before, add_special_tokens=False)["input_ids"])
            whole = tokenizer(before + answer, add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(whole[first:]).strip() == answer  # the answer has tokens of its own
            expected += gained(theirs, tokenizer, before + answer + tokenizer.eos_token, first)
            size += len(answer.encode())
            words += len(answer.split())
    found = dialogue_perplexity(model, DIALOGUES)
    assert found.tokens == len(expected)
    assert found.log_probability == pytest.approx(sum(expected), abs=1e-2)
    assert (found.bytes, found.words, found.documents) == (size, words, 2)


def test_joined_by_eos_everything_is_scored(model: TextModel, theirs: Any) -> None:
    eos = model.tokenizer.eos_token
    texts = ["".join(f"{message['content']}{eos}" for message in each.messages) for each in DIALOGUES]
    expected = [number for text in texts for number in gained(theirs, model.tokenizer, text, 1)]
    written_as = JoinedByEos.of(model.tokenizer)
    found = dialogue_perplexity(model, DIALOGUES, written_as=written_as)
    assert found.tokens == len(expected)
    assert found.log_probability == pytest.approx(sum(expected), abs=1e-2)
    said = sum(len(message["content"].encode()) for each in DIALOGUES for message in each.messages)
    assert said - 8 <= found.bytes < said  # but for the first token of each
    assert found.words == sum(len(message["content"].split()) for each in DIALOGUES for message in each.messages)


def test_windows_change_contexts_and_nothing_else(model: TextModel) -> None:
    whole = dialogue_perplexity(model, DIALOGUES)
    cut = dialogue_perplexity(model, DIALOGUES, length=8, stride=2)
    assert (cut.tokens, cut.bytes) == (whole.tokens, whole.bytes)
    assert cut.log_probability != whole.log_probability


def test_documents_keep_what_the_format_counts(model: TextModel) -> None:
    documents = conversation_documents(model.tokenizer, DIALOGUES, Templated.of(model.tokenizer))
    for document, each in zip(documents, DIALOGUES, strict=True):
        scored = document.tokens[document.counts].tolist()
        assert scored.count(model.tokenizer.eos_token_id) == len(each.messages) // 2
        assert not document.counts[0]


def test_conversations_that_cannot_be_scored_are_said(model: TextModel, shared_data: Path) -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        dialogue_perplexity(loquent.load(shared_data / "models/stories260k"), DIALOGUES)
    with pytest.raises(ArgumentError, match="no documents"):
        dialogue_perplexity(model, [])
