"""The text that the default model learns from: spelled, chosen and split as the scripts say."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loquent.tokenization import train_tokenizer

SCRIPTS = Path(__file__).parents[2] / "scripts"
TEMPLATE = (SCRIPTS / "default_model" / "chat_template.jinja").read_text(encoding="utf-8")
MARKS = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.fixture(autouse=True)
def scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("im sure i dont  like it , do you ?", "I'm sure I don't like it, do you?"),
        ("whats your favorite movie", "What's your favorite movie?"),
        ("i'll go. you should,too", "I'll go. You should,too."),
        ("It was fun \U0001f642", "It was fun."),
        ("so what do you think", "So what do you think?"),
        ("what a day! i love it", "What a day! I love it."),
        ("have you seen star wars?", "Have you seen Star wars?"),
        ("I cant and DONT", "I can't and Don't."),
        ("one\n\n two ", "One\nTwo."),
        ("café", "Café."),
    ],
)
def test_turns_are_spelled(typed: str, spelled: str) -> None:
    from default_model.spelling import clean_turn

    assert clean_turn(typed, frozenset({"star"})) == spelled


def test_names_are_what_nearly_everybody_writes_so() -> None:
    from default_model.spelling import names_in

    turns = ["I like Batman and dogs"] * 19 + ["I like batman and Dogs"] + ["I AM LIKE DOGS"] * 50 + ["I like Rare"] * 5
    assert names_in(turns) == {"batman"}


def test_a_corpus_is_whole_documents_and_whole_conversations(tmp_path: Path) -> None:
    from default_model.text_files import write_corpus

    _write(tmp_path / "stories.txt.xz", "\n<|endoftext|>\n".join(map(_book, range(60))))
    rows = [{"source": "self_dialogue_corpus", "turns": _talk(number)} for number in range(200)]
    rows += [rows[0], {"source": "chatterbot-corpus", "turns": ["Who are you then?", "I am a chat bot."]}]
    _write(tmp_path / "dialogues.jsonl.xz", "\n".join(map(json.dumps, rows)))
    figures = write_corpus(tmp_path, tmp_path / "out")
    train, held_out = (_documents(tmp_path / "out" / f"stories.{part}.txt") for part in ("train", "held_out"))
    assert len(train) + len(held_out) == 60
    assert 1 <= len(held_out) <= 3
    assert not {line for text in train for line in text} & {line for text in held_out for line in text}
    assert all(len(text) == 20 for text in train)
    talks = {
        part: [json.loads(line) for line in (tmp_path / "out" / f"dialogues.{part}.jsonl").read_text().splitlines()]
        for part in ("train", "held_out")
    }
    assert len(talks["train"]) + len(talks["held_out"]) == 200
    assert 2 <= len(talks["held_out"]) <= 25
    assert not {row["turns"][0] for row in talks["train"]} & {row["turns"][0] for row in talks["held_out"]}
    assert all(row["source"] == "self_dialogue_corpus" for part in talks.values() for row in part)
    assert figures["dialogues.train.jsonl"]["documents"] == len(talks["train"])
    assert figures == json.loads((tmp_path / "out" / "corpus.json").read_text())


def test_copies_of_what_is_learned_are_not_held_out() -> None:
    from default_model.split import new_texts

    story = " ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(100))
    half = " ".join(story.split()[:50]) + " one two three four five six seven " * 8
    assert list(new_texts([story, "x y"], [story.upper(), half, "something else entirely is said in here"])) == [
        False,
        False,
        True,
    ]


def test_the_chat_template_marks_answers_and_refuses_other_roles() -> None:
    transformers = pytest.importorskip("transformers")
    ours = train_tokenizer(["a b c"], 300, special_tokens=MARKS, chat_template=TEMPLATE)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=ours.backend_tokenizer, chat_template=TEMPLATE)
    talk = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": " a "},
        {"role": "assistant", "content": "b\nb"},
        {"role": "user", "content": "c"},
    ]
    text = "<|system|>s<|end|><|user|>a<|end|><|assistant|>b\nb<|end|><|user|>c<|end|>"
    arguments: dict[str, Any] = {"return_dict": True, "return_assistant_tokens_mask": True}
    for one in (ours, theirs):
        assert one.apply_chat_template(talk, tokenize=False) == text
        assert one.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True) == text.split("b\n")[0]
        encoded = one.apply_chat_template(talk, **arguments)
        answer = [index for index, mine in zip(encoded["input_ids"], encoded["assistant_masks"]) if mine]
        assert one.decode(answer) == "b\nb<|end|>"
        for wrong in ([{"role": "tool", "content": "x"}], talk[1::-1]):
            with pytest.raises(Exception, match="A message's role is 'user' or 'assistant'"):
                one.apply_chat_template(wrong)


def _book(number: int) -> str:
    common = "The old king went to the dark wood and he saw the little bird there with"
    paragraphs = (f"{common} {_word(number)} {_word(number * 20 + place)} and more." for place in range(20))
    return "CHAPTER ONE\n\n" + "\n\n".join(paragraphs)


def _talk(number: int) -> list[str]:
    named = (f"{_word(number * 6 + place)} {_word(number + place)}" for place in range(6))
    return [f"Do you like the film {name} at all, friend." for name in named]


def _word(number: int) -> str:
    return "q" + "".join(chr(97 + int(digit)) for digit in str(number)) + "z"


def _write(path: Path, text: str) -> None:
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.write(text)


def _documents(path: Path) -> list[list[str]]:
    return [text.strip().split("\n") for text in path.read_text(encoding="utf-8").split("<|endoftext|>\n")]
