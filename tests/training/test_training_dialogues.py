"""Conversations: three spellings, two formats, and the loss on exactly what the assistant must write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.errors import ArgumentError, DataError, TemplateError
from loquent.tokenization import GPT2Tokenizer, LlamaTokenizer
from loquent.tokenization.templates import TURNS_JOINED_BY_EOS
from loquent.training.data import Dialogue, JoinedByEos, Templated, encode_dialogues, encoding, read_dialogues
from training.data_tokenizers import byte_level

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Without a prompt of its own, and with the space that belongs to the first word of an answer.
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[' + m.content|trim + ']' }}"
    "{% else %}{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# As templates of models that think: an answer loses its thoughts when the conversation goes on.
FORGETFUL = (
    "{% for m in messages %}{{ m.role + ':' }}{% if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}"
    "{% endif %}{{ m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def turns(*texts: str, system: str | None = None) -> Dialogue:
    spoken = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return Dialogue((*([{"role": "system", "content": system}] if system else []), *spoken), "made.jsonl, line 7")


LONG = turns("Hello there", " the cat ran\nand ran ", "how are you?", "I'm fine", "don't worry", system="sat on")


def counted_text(tokenizer: Any, dialogue: Dialogue, **options: Any) -> tuple[str, list[str]]:
    """What the conversation's tokens say, and the runs of it that the loss counts."""
    examples = encode_dialogues(tokenizer, [dialogue], Templated.of(tokenizer, **options))
    tokens, counted = examples.document(0)
    runs: list[list[int]] = [[]]
    for token, counts in zip(tokens.tolist(), counted.tolist()):
        if counts:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return tokenizer.decode(tokens.tolist()), [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_count_with_their_end_token(template: str) -> None:
    text, runs = counted_text(byte_level(chat_template=template), LONG)
    assert runs == [" the cat ran\nand ran <|im_end|>", "I'm fine<|im_end|>"]
    # What follows the last answer is nothing to learn from.
    assert text.endswith("I'm fine<|im_end|>\n")


def test_an_answer_that_ends_without_a_special_token_counts_as_written() -> None:
    plain = CHATML.replace("<|im_end|>", "#")
    assert counted_text(byte_level(chat_template=plain), turns("the", "cat"))[1] == ["cat#\n"]


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_a_token_counts_where_one_of_its_characters_does(trim_offsets: bool) -> None:
    tokenizer = byte_level(trim_offsets=trim_offsets, chat_template=BRACKETS)
    text, runs = counted_text(tokenizer, turns("Hello", "the cat", "how", "sat"))
    assert text == "[Hello] the cat <|endoftext|>[how] sat <|endoftext|>"
    assert runs == [" the cat <|endoftext|>", " sat <|endoftext|>"]
    # Here the space before the answer belongs to the prompt, and the token that has both is the answer's.
    prompting = "{{ 'Q: ' + messages[0].content + ' A: ' }}{{ messages[1].content if messages|length > 1 }}"
    tokenizer.chat_template = prompting
    assert counted_text(tokenizer, turns("the", "cat"))[1] == [" cat"]


def test_all_bytes_of_a_character_count() -> None:
    tokenizer = byte_level(chat_template="{{ messages[0].content }}{{ messages[1].content if messages[1] }}")
    assert counted_text(tokenizer, turns("the", "東🙂"))[1] == ["東🙂"]
    marked = "the{% generation %}{{ messages[1].content }}{% endgeneration %} cat"
    assert counted_text(byte_level(chat_template=marked), turns("", "東🙂"))[1] == ["東🙂"]


def test_all_tokens_may_count() -> None:
    tokenizer = byte_level(chat_template=CHATML)
    text, runs = counted_text(tokenizer, LONG, answers_only=False)
    assert text.endswith("don't worry<|im_end|>\n")
    assert runs == [text.removeprefix("<|im_start|>")]


def test_a_template_that_rewrites_what_was_said_is_refused_where_that_matters() -> None:
    tokenizer = byte_level(chat_template=FORGETFUL)
    message = r"made\.jsonl, line 7: The chat template writes message 2 in another way .*\{% generation %\}.*format eos"
    with pytest.raises(TemplateError, match=message):
        counted_text(tokenizer, turns("a", "b", "c", "d"))
    assert counted_text(tokenizer, turns("a", "b"))[1] == ["<think></think>b<|endoftext|>"]
    tokenizer.chat_template = MARKED.replace("{% generation %}", "{{ 'so' if loop.last }}{% generation %}")
    assert counted_text(tokenizer, turns("a", "b", "c", "d"))[1] == ["b<|im_end|>", "d<|im_end|>"]


def test_templates_that_refuse_a_conversation_say_which() -> None:
    refusing = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(TemplateError, match=r"made\.jsonl, line 7: Roles must alternate"):
        counted_text(byte_level(chat_template=refusing), LONG)
    with pytest.raises(TemplateError, match="has no chat template"):
        Templated.of(byte_level())


def test_a_conversation_without_an_answer_is_refused() -> None:
    message = r"line 7 has no message of the assistant, only of \['system', 'user'\].*Leave it out, or count all"
    with pytest.raises(DataError, match=message):
        counted_text(byte_level(chat_template=CHATML), turns("Hello", system="sat"))


@pytest.mark.filterwarnings("ignore:return_assistant_tokens_mask")
@pytest.mark.parametrize("dialogue", [LONG, turns("a", "the cat"), turns("dog", "café!\n", "ran", " ")])
def test_masks_equal_those_of_transformers(dialogue: Dialogue) -> None:
    transformers = pytest.importorskip("transformers")
    ours = byte_level(chat_template=MARKED)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=ours.backend_tokenizer, eos_token=ours.eos_token, chat_template=MARKED
    )
    encoded = theirs.apply_chat_template(list(dialogue.messages), return_dict=True, return_assistant_tokens_mask=True)
    for template in (MARKED, CHATML):
        ours.chat_template = template
        examples = encode_dialogues(ours, [dialogue], Templated.of(ours))
        length = len(examples.tokens)
        assert encoded["input_ids"][:length] == examples.tokens.tolist()
        assert encoded["assistant_masks"] == [*map(int, examples.counted), *[0] * (len(encoded["input_ids"]) - length)]
    assert sum(encoded["assistant_masks"]) > 2


def test_templates_of_a_sentencepiece_tokenizer(shared_data: Path) -> None:
    llama = LlamaTokenizer.from_pretrained(shared_data / "models" / "stories260k")
    llama.chat_template = "{{ bos_token }}" + BRACKETS
    dialogue = turns("Once upon", "a time there", "was", "a cat")
    examples = encode_dialogues(llama, [dialogue], Templated.of(llama))
    text = "<s>[Once upon] a time there </s>[was] a cat </s>"
    assert examples.tokens.tolist() == llama(text, add_special_tokens=False)["input_ids"]
    counted = [token for token, counts in zip(examples.tokens.tolist(), examples.counted.tolist()) if counts]
    assert llama.decode(counted) == "a time there </s> a cat </s>"


def test_dialogpt_joins_turns_by_eos(shared_data: Path) -> None:
    gpt2 = GPT2Tokenizer.from_pretrained(shared_data / "tokenizers" / "gpt2")
    texts = ["Does money buy happiness?", "Depends how much you spend .", " What's the best way? 🙂", "No idea"]
    examples = encode_dialogues(gpt2, [turns(*texts), turns(*texts[:1])], JoinedByEos.of(gpt2))
    # As the model's card has it: each turn with its EOS is encoded, and the ids are concatenated.
    expected = [token for text in texts for token in gpt2.encode(text + gpt2.eos_token)]
    assert examples.document(0)[0].tolist() == expected
    assert examples.document(0)[1].tolist() == [False, *[True] * (len(expected) - 1)]
    assert examples.document(1)[0].tolist() == gpt2.encode(texts[0] + gpt2.eos_token)
    # And as a chat with such a model is written.
    written = gpt2.apply_chat_template(list(turns(*texts).messages), chat_template=TURNS_JOINED_BY_EOS)
    assert written == expected


def test_eos_is_needed_to_join_by() -> None:
    with pytest.raises(ArgumentError, match=r"has no EOS token to join turns by. Set tokenizer.eos_token"):
        JoinedByEos.of(byte_level(eos_token=None))
    calling = Dialogue(({"role": "assistant", "content": None, "tool_calls": [1]},), "a.jsonl, line 1")
    with pytest.raises(DataError, match="line 1 has a message without text, which only a chat template can write"):
        encode_dialogues(byte_level(), [calling], JoinedByEos.of(byte_level()))


@given(st.data())
def test_covered_tokens_are_found_one_by_one(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=30))
    ends = np.cumsum(lengths)
    offsets = np.stack([ends - lengths, ends], axis=1)
    places = sorted(data.draw(st.sets(st.integers(0, int(ends[-1]) + 3), max_size=8)))
    spans = tuple(zip(places[0::2], places[1::2]))
    expected = np.zeros(len(lengths), np.bool_)
    for start, end in spans:
        inside = [at for at, (begin, stop) in enumerate(offsets) if begin < end and stop > start and begin < stop]
        if inside:
            expected[inside[0] : inside[-1] + 1] = True
    covered = encoding._covered(offsets, spans)
    # A token without characters may count where it stands beside what counts.
    empty = np.array(lengths) == 0
    assert covered[~empty].tolist() == expected[~empty].tolist()
    assert np.all(covered[expected])


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_three_spellings(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"source": "x", "turns": ["Hi", "Hello", "Bye"]},
        {"messages": [{"role": "system", "content": "Be nice"}, {"role": "tool", "content": "1", "name": "f"}]},
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}]},
        {"conversations": [{"from": "gpt", "value": "a"}, {"role": "user", "content": "b"}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]},
    )
    dialogues = list(read_dialogues([path]))
    assert [[(m["role"], m["content"]) for m in dialogue.messages] for dialogue in dialogues] == [
        [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")],
        [("system", "Be nice"), ("tool", "1")],
        [("system", "s"), ("user", "q")],
        [("assistant", "a"), ("user", "b")],
        [("assistant", None)],
    ]
    assert dialogues[1].messages[1]["name"] == "f"
    assert dialogues[4].messages[0]["tool_calls"] == [{"name": "f"}]
    assert [dialogue.place for dialogue in dialogues] == [f"{path}, line {number}" for number in range(1, 6)]


def test_both_speakers_may_be_the_assistant(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"turns": ["a", "b", "c"]}, {"turns": ["d", "e"]})
    dialogues = list(read_dialogues([path], speaker="both"))
    assert [[(m["role"][0], m["content"]) for m in dialogue.messages] for dialogue in dialogues] == [
        [("u", "a"), ("a", "b"), ("u", "c")],
        [("u", "b"), ("a", "c")],
        [("u", "d"), ("a", "e")],
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "a"}, r"line 2 has the fields \['text'\], and must be one of \{\"turns\": "),
        ({"turns": ["a"], "messages": []}, r"has the fields \['messages', 'turns'\], and must be one of"),
        ({"turns": []}, "'turns' must be a list of"),
        ({"turns": "abc"}, "'turns' must be a list of"),
        ({"turns": ["a", 1]}, "the turn 1 must be a text"),
        ({"messages": ["a"]}, "the message 'a' must be an object such as"),
        ({"messages": [{"role": "user"}]}, r"'role' and 'content' of the message \{'role': 'user'\} must be texts"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "'role' and 'content' of the message"),
        ({"conversations": [{"from": "human", "value": 3}]}, "'from' and 'value' of the message"),
        ([], "holds a JSON list, and must hold an object"),
    ],
    ids=str,
)
def test_lines_of_another_form(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "a.jsonl", {"turns": ["a", "b"]}, line)
    with pytest.raises(DataError, match=r"a\.jsonl, line 2") as caught:
        list(read_dialogues([path]))
    assert caught.match(message)


def test_files_and_options_that_are_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "a"}]})
    with pytest.raises(DataError, match=r"line 1 says itself who the assistant is, so speaker='both' has no meaning"):
        list(read_dialogues([path], speaker="both"))
    with pytest.raises(ArgumentError, match=r"speaker='first' must be \"second\" or \"both\""):
        read_dialogues([path], speaker="first")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"b\.jsonl has no conversation in it"):
        list(read_dialogues([write(tmp_path / "b.jsonl")]))
    with pytest.raises(DataError, match=r"a\.txt must end with one of \.jsonl, \.json"):
        read_dialogues([write(tmp_path / "a.txt")])
