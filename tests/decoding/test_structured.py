"""Structured output: what is allowed, against brute force; what models write under it, against Python's own parsers."""

from __future__ import annotations

import gc
import itertools
import json
import re
import sys
import time
import weakref
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

import loquent
from loquent.cache import Memory
from loquent.decoding.arguments.grammar import grammar_of
from loquent.decoding.arguments.surroundings import Surroundings
from loquent.decoding.grammar import Completion
from loquent.decoding.rules import Context, Grammar, Heal
from loquent.errors import ArgumentError, MissingExtraError
from loquent.generation import start

pytest.importorskip("llguidance", reason='structured output needs pip install "loquent[structured]"')

PIECES = ("a", "b", "c", "ab", "bc", "aa", "cab", "<end>")
END = 7
LONGEST = 6


@pytest.fixture(scope="module")
def letters() -> Any:
    """A tokenizer of seven pieces of text and an end token."""
    backend = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(PIECES)}, merges=[]))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<end>"])
    return loquent.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def compiled(tokenizer: Any, vocabulary: int, ends: Any, **fields: Any) -> Any:
    config = loquent.GenerationConfig(eos_token_id=ends, **fields)
    return grammar_of(config, Surroundings(vocabulary, None, tokenizer=tokenizer))


def allowed(rule: Grammar, tokens: Any, memory: Memory | None = None, vocabulary: int = 8) -> set[int]:
    """What the rule leaves of a row in a context without a prompt."""
    context = Context(np.array(tokens, np.int64), 0, 0, memory or Memory())
    row = rule.apply(np.zeros((1, vocabulary), np.float32), [rule], [context])[0]
    return set(np.flatnonzero(row == 0).tolist())


def language(regex: str) -> set[str]:
    texts = ("".join(text) for size in range(LONGEST + 1) for text in itertools.product("abc", repeat=size))
    return {text for text in texts if re.fullmatch(regex, text)}


def brute_force(texts: set[str], output: str) -> set[int]:
    """The pieces with which the output still begins a text of the language, and the end where it is one."""
    pieces = {at for at, piece in enumerate(PIECES[:END]) if any(text.startswith(output + piece) for text in texts)}
    return pieces | ({END} if output in texts else set())


@st.composite
def regexes(draw: st.DrawFn) -> str:
    """A regular expression whose texts have at most LONGEST letters."""
    sizes = {"a": 1, "b": 1, "c": 1, "ab": 2, "[ab]": 1, "[bc]": 1, "a|bc": 2, "cab|ca": 3}
    branches = []
    for _ in range(draw(st.integers(1, 2))):
        branch, left = "", LONGEST
        for _ in range(draw(st.integers(1, 3))):
            atom, times = draw(st.sampled_from(list(sizes))), draw(st.sampled_from(["", "", "?", "{1,2}"]))
            left -= sizes[atom] * (2 if times == "{1,2}" else 1)
            if left >= 0:
                branch += f"({atom}){times}"
        branches.append(branch)
    return "|".join(branches)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(regex=regexes())
def test_exactly_the_tokens_that_a_text_goes_on_with(letters: Any, regex: str) -> None:
    """All tokenizations of all texts: at each of their prefixes, what is left is what brute force leaves."""
    texts = language(regex)
    assume(texts != {""})
    grammar = compiled(letters, 8, END, regex=regex)
    rule, seen = Grammar(grammar), [()]
    while seen and len(seen) < 400:
        tokens: tuple[int, ...] = seen.pop()
        expected = brute_force(texts, "".join(PIECES[token] for token in tokens))
        assert allowed(rule, tokens) == expected, (regex, tokens)
        seen += [(*tokens, token) for token in expected - {END}]


def test_samples_have_the_restricted_distribution(letters: Any, llama_pair: Any) -> None:
    """Step by step the model's own probabilities, renormalised over what the language allows; chi-square, p > 0.001."""
    import torch

    ours, theirs = llama_pair(1)
    texts, prompt, samples = language("(ab|c){1,2}"), [5, 9, 3], 1500
    expected: dict[tuple[int, ...], float] = {}
    waiting = [((), 1.0)]
    while waiting:
        tokens, probability = waiting.pop()
        options = sorted(brute_force(texts, "".join(PIECES[token] for token in tokens)))
        with torch.no_grad():
            logits = theirs(torch.tensor([[*prompt, *tokens]])).logits[0, -1].double()
        for token, share in zip(options, torch.softmax(logits[options], 0).tolist()):
            if token == END:
                expected[(*tokens, END)] = probability * share
            else:
                waiting.append(((*tokens, token), probability * share))
    assert sum(expected.values()) == pytest.approx(1)
    rows = ours.generate(
        [prompt],
        do_sample=True,
        top_k=0,
        num_return_sequences=samples,
        seed=11,
        max_new_tokens=6,
        regex="(ab|c){1,2}",
        tokenizer=letters,
        eos_token_id=END,
        pad_token_id=36,
    ).tolist()
    found = [tuple(token for token in row[len(prompt) :] if token != 36) for row in rows]
    assert set(found) <= set(expected)
    counted = {tokens: found.count(tokens) for tokens in expected}
    distance = sum((counted[key] - samples * share) ** 2 / (samples * share) for key, share in expected.items())
    assert len(expected) > 6
    assert distance < len(expected) - 1 + 3.3 * (2 * (len(expected) - 1)) ** 0.5  # the normal approximation's 0.999


def test_states_follow_growth_rewinds_and_forks(letters: Any) -> None:
    rule = Grammar(compiled(letters, 8, END, regex="(ab|c|aa){1,50}"))
    output = [0, 1, 2, 2, 2, 6, 1, 2, 6, 1]  # a b ab ab ab cab b: this does not match
    alone = [allowed(rule, output[:length]) for length in range(len(output) + 1)]
    memory = Memory()
    assert [allowed(rule, output[:length], memory) for length in range(len(output) + 1)] == alone
    assert allowed(rule, output[:7], memory) == alone[7] == set(range(8)), "a drafted row that does not match is free"
    twin = memory.fork()
    memory.rewind(3)
    assert [allowed(rule, output[:length], memory) for length in (3, 5, 4, 6)] == [alone[at] for at in (3, 5, 4, 6)]
    assert allowed(rule, [*output[:4], 2], twin) == alone[5]
    for length in range(40):  # longer than what is kept, then back to the beginning
        allowed(rule, [5] * length, twin)
    twin.rewind(1)
    assert allowed(rule, [2, 0], twin) == {0, 1, 4, 5}


def test_rows_of_tensors_and_arrays_are_alike(letters: Any) -> None:
    import torch

    grammars = [compiled(letters, 8, END, regex=regex) for regex in ("(ab|c){1,3}", "cab?", "a+")]
    contexts = [Context(np.array(tokens), 1) for tokens in ([3, 2], [0], [7, 0, 5])]
    scores = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    rules, heals = [Grammar(grammar) for grammar in grammars], [Heal(2, (2, 3, 6))] * 3
    behind = [Context(context.tokens, prompt) for context, prompt in zip(contexts, (3, 1, 4))]
    for kind, settings_, seen in ((Grammar, rules, contexts), (Heal, heals, behind)):
        ours = kind.apply(scores.copy(), settings_, seen)
        assert np.isinf(ours).any()
        assert kind.apply(torch.tensor(scores), settings_, seen).numpy() == pytest.approx(ours)
    assert ours[0, 2] == scores[0, 2] + 1
    assert (ours[1] == scores[1]).all()


def test_a_tokenizer_that_nobody_has_any_more_is_let_go() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = loquent.PreTrainedTokenizerFast(tokenizer_object=backend)
    assert compiled(tokenizer, 1, None, regex="a{1,3}").start.allowed.tolist() == [1]
    kept = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert kept() is None


@pytest.fixture(scope="module")
def gpt2(shared_data: Path) -> Any:
    return loquent.AutoTokenizer.from_pretrained(shared_data / "tokenizers/gpt2")


def test_ids_beyond_the_tokenizer_and_several_end_tokens(gpt2: Any) -> None:
    full_stop = gpt2.encode(".")[0]
    for vocabulary in (50257, 50304, 40000):
        ends = [50256, full_stop] if vocabulary > 50256 else [full_stop, 50256]
        rule = Grammar(compiled(gpt2, vocabulary, ends, regex=r"[a-z. ]{1,3}"))
        first = allowed(rule, [], vocabulary=vocabulary)
        assert first == {
            token
            for token in range(min(vocabulary, 50256))
            if token != full_stop and re.fullmatch(r"[a-z. ]{1,3}", gpt2.decode([token]))
        }
        behind = allowed(rule, gpt2.encode("ab"), vocabulary=vocabulary)
        assert behind & {50256, full_stop, 50300} == {full_stop, 50256} - ({50256} if vocabulary < 50000 else set())
        assert len(behind) > 20
        assert allowed(rule, gpt2.encode("abc"), vocabulary=vocabulary) <= {50256, full_stop}


def test_what_a_tokenizer_compiles_it_keeps(gpt2: Any) -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(200)}}
    first = compiled(gpt2, 50257, 50256, response_format=schema)
    begun = time.perf_counter()
    assert compiled(gpt2, 50257, 50256, response_format=schema) is first
    assert time.perf_counter() - begun < 0.02
    assert compiled(gpt2, 50304, 50256, response_format=schema) is not first


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: Annotated[str, pydantic.Field(max_length=8)]
    age: Annotated[int, pydantic.Field(ge=0, le=120)]
    likes: Annotated[list[Literal["red", "green", "dark blue"]], pydantic.Field(max_length=2)]
    parent: bool | None


SCHEMA = Person.model_json_schema()
REGEX = r"[A-Z][a-z]{2,5} / \d{1,3}€"
GRAMMAR = 'start: "Tom" (" and " NAME){1,3} "."\nNAME: "Lily" | "Ben"'
CHOICE = ["yes", "no, never", "café 🐶\n", 'a "word"/\\']
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "json": ({"response_format": Person}, lambda text: Person.model_validate_json(text, strict=True)),
    "openai": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}},
        Person.model_validate_json,
    ),
    "regex": ({"regex": REGEX}, lambda text: re.fullmatch(REGEX, text)[0]),
    "grammar": ({"grammar": GRAMMAR}, lambda text: re.fullmatch(r"Tom( and (Lily|Ben)){1,3}\.", text)[0]),
    "choice": ({"choice": CHOICE}, CHOICE.index),
}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.5},
    "beams": {"do_sample": False, "num_beams": 3},
}


@pytest.fixture(scope="module", params=["the default model", "stories260k"])
def model(request: pytest.FixtureRequest) -> Any:
    if request.param == "the default model":
        return loquent.load(device="cpu")
    return loquent.load(request.getfixturevalue("shared_data") / "models/stories260k", device="cpu")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_outputs_parse(model: Any, case: str, mode: str) -> None:
    fields, parse = CASES[case]
    for seed in range(6 if mode == "sampled" else 1):
        options = {**fields, **MODES[mode], "max_new_tokens": 150, "seed": seed}
        text = model.generate("Once upon a time", **options)
        parse(text)
        *_, last = model.events(["Once upon a time"], **options)
        assert last.finished == "eos"
        if mode != "beams":
            assert "".join(model.stream("Once upon a time", **options)) == text
        # A model without end tokens stops where the grammar is complete, and says the same.
        *_, last = events = list(model.events(["Once upon a time"], **options, eos_token_id=None))
        parse("".join(event.text for event in events))
        assert last.finished == "eos"


def test_different_grammars_side_by_side_with_free_rows(model: Any) -> None:
    ids = model.tokenizer("Once upon a time")["input_ids"]
    common = {"tokenizer": model.tokenizer, "max_new_tokens": 60, "do_sample": True, "seed": 4}
    asked = [fields for fields, _ in CASES.values()] + [{}, {"num_beams": 3, "do_sample": False, "choice": CHOICE}]
    alone = []
    for fields in asked:
        run = start(model.model, [ids], **{**common, **fields})
        list(run.events())
        alone.append(run.results()[0].tokens)
    runs = [start(model.model, [ids], **{**common, **fields}) for fields in asked]
    for run in runs:
        list(run.events())
    assert [run.results()[0].tokens for run in runs] == alone
    batch = model.generate(["Once upon a time", "The king"], do_sample=True, seed=[4, 5], regex="[a-z ]{5,9}")
    assert all(re.fullmatch("[a-z ]{5,9}", text) for text in batch)
    assert batch[0] == model.generate("Once upon a time", do_sample=True, seed=4, regex="[a-z ]{5,9}")


def test_json_objects_of_any_kind(model: Any) -> None:
    [*_, last] = events = list(model.events(["A"], response_format={"type": "json_object"}, do_sample=True, seed=1))
    text = "".join(event.text for event in events)
    assert text.startswith("{")
    assert last.finished == "length" or isinstance(json.loads(text), dict)
    assert model.generate("A", response_format={"type": "text"}, do_sample=False) == model.generate(
        "A", do_sample=False
    )
    loose = {"type": "array", "items": {"enum": [1, None, -2.5, "é"]}, "maxItems": 3}
    assert isinstance(json.loads(model.generate("A", response_format=loose, do_sample=True, seed=3)), list)


def test_a_choice_is_complete_behind_any_of_its_texts(letters: Any) -> None:
    complete = Completion(compiled(letters, 7, None, choice=["ab", "abc", "cab"]))
    outputs: list[tuple[list[int], bool]] = [([0], False), ([0, 1], False), ([2], False), ([6], True), ([0, 4], True)]
    for tokens, ends in [*outputs, *reversed(outputs)]:
        assert complete(tokens) is ends
    with pytest.raises(ArgumentError, match=r"choice=.* does not allow the output"):
        complete([2, 2])
    with pytest.raises(ArgumentError, match="only the empty text"):
        compiled(letters, 7, None, regex="a{0}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"regex": "a", "choice": ["a"]}, "regex and choice are different grammars"),
        ({"regex": "(a"}, r"regex='\(a' cannot be compiled.*unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": ""}, "empty"),
        ({"choice": []}, "nothing to choose"),
        ({"choice": ["a", ""]}, "empty"),
        ({"grammar": "start: foo"}, "unknown name"),
        ({"grammar": "start: start"}, "no token of the tokenizer can go on"),
        ({"grammar": 'start: "d"'}, "no token of the tokenizer can go on"),
        ({"response_format": {"type": "integer", "minimum": 5, "maximum": 3}}, "minimum"),
        ({"response_format": {"type": "strin"}}, "Invalid type"),
        ({"response_format": {"type": "json_schema"}}, "has no schema"),
        ({"response_format": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"response_format": {"type": "string", "pattern": {1, 2}}}, "cannot be written as JSON"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_reason(letters: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        compiled(letters, 8, END, **fields)


def laughs(level: int) -> dict[str, Any]:
    return {"type": "array", "prefixItems": [{"$ref": f"#/$defs/x{level - 1}"}] * 9} if level else {"type": "integer"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE: dict[str, dict[str, Any]] = {
    "counts": {"regex": "a{1000000000}"},
    "counts of counts": {"regex": "((a{1000}){1000}){1000}"},
    "exponential": {"regex": "(a|b)*a(a|b){60}"},
    "ambiguous": {"regex": "((a+)+)+(.*a){30}"},
    "parentheses": {"regex": "(" * 20000 + "a" + ")" * 20000},
    "long": {"regex": "a" * 1_000_000},
    "deep": {"response_format": nested(5000)},
    "lengths": {"response_format": {"type": "string", "minLength": 10**9}},
    "items": {"response_format": {"type": "array", "minItems": 10**9, "items": {"type": "integer"}}},
    "laughs": {"response_format": {"$defs": {f"x{i}": laughs(i) for i in range(40)}, "$ref": "#/$defs/x39"}},
    "circle": {"response_format": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}},
    "rules": {"grammar": "start: e\ne: e e e | e e | /a+/ | "},
    "choices": {"choice": [f"choice {i}" for i in range(100_000)]},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_grammar_is_refused_or_followed_in_seconds(gpt2: Any, case: str) -> None:
    begun, refusal = time.perf_counter(), ""
    tokens: list[int] = []
    try:
        rule = Grammar(compiled(gpt2, 50257, 50256, **HOSTILE[case]))
        for _ in range(25):
            tokens.append(max(allowed(rule, tokens, vocabulary=50257) - {50256}, default=50256))
    except ArgumentError as error:
        refusal = str(error)
    assert len(tokens) == 25 or 20 < len(refusal) < 500
    assert time.perf_counter() - begun < 6


def test_there_must_be_a_tokenizer_and_the_library(letters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match=r"regex='a' is about text. Pass tokenizer="):
        grammar_of(loquent.GenerationConfig(regex="a"), Surroundings(8, None))
    with pytest.raises(ArgumentError, match="cannot be listed"):
        compiled(object(), 8, END, regex="a")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r'pip install "loquent\[structured\]"'):
        compiled(letters, 9, END, regex="a")


def test_a_config_keeps_and_saves_them(tmp_path: Path) -> None:
    config = loquent.GenerationConfig(response_format=Person)
    assert config.response_format == Person.model_json_schema()
    config.save_pretrained(tmp_path)
    assert loquent.GenerationConfig.from_pretrained(tmp_path).response_format == config.response_format
    assert loquent.GenerationConfig(choice=("a", "b")).choice == ["a", "b"]
    with pytest.raises(ArgumentError, match="choice"):
        loquent.GenerationConfig(choice=[1])
