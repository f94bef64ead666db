"""The options that choose a strategy: each reaches generation, and what contradicts itself is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import loquent
from loquent.text import TextModel

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model(stories: str) -> TextModel:
    return loquent.load(stories)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (("--penalty-alpha", "0.6", "--top-k", "4"), {"penalty_alpha": 0.6, "top_k": 4}),
        (
            ("--num-beams", "4", "--num-beam-groups", "2", "--diversity-penalty", "1.5"),
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.5},
        ),
        (("--num-beams", "3", "--early-stopping", "never"), {"num_beams": 3, "early_stopping": "never"}),
        (("--num-beams", "3", "--early-stopping", "true"), {"num_beams": 3, "early_stopping": True}),
        (("--dola-layers", "low"), {"dola_layers": "low"}),
        (("--dola-layers", "1,3"), {"dola_layers": [1, 3]}),
        (("--prompt-lookup", "3"), {"prompt_lookup_num_tokens": 3}),
        (("--early-exit", "2", "--draft-tokens", "4"), {"assistant_early_exit": 2, "num_assistant_tokens": 4}),
        (("--num-beams", "3", "--temperature", "0.8", "--seed", "1"),
         {"num_beams": 3, "do_sample": True, "temperature": 0.8, "seed": 1}),
        (("--typical-p", "0.8", "--seed", "2"), {"do_sample": True, "typical_p": 0.8, "seed": 2}),
        (("--set", "top_n_sigma=1", "--seed", "2"), {"do_sample": True, "top_n_sigma": 1.0, "seed": 2}),
        (("--set", "suppress_tokens=[403, 407]", "--set", "frequency-penalty=0.5"),
         {"suppress_tokens": [403, 407], "frequency_penalty": 0.5}),
        (("--regex", "( [a-z]{3}){4}"), {"regex": "( [a-z]{3}){4}"}),
        (("--choice", " there", "--choice", " never"), {"choice": [" there", " never"]}),
        (("--grammar", 'start: / [a-c]+/'), {"grammar": "start: / [a-c]+/"}),
    ],
)  # fmt: skip
def test_options_mean_arguments(
    run: Any, stories: str, model: TextModel, options: tuple[str, ...], meant: dict[str, Any]
) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "16", "--no-echo", "-q", *options)
    assert (done.returncode, done.stdout) == (0, model.generate(PROMPT, max_new_tokens=16, **meant) + "\n")


def test_words_and_prompts_become_tokens(run: Any, stories: str, model: TextModel) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "12", "--no-echo", "-q")
    forced = run(*arguments, "--num-beams", "3", "--force-word", "dog").stdout
    assert "dog" in forced
    assert "dog" not in run(*arguments, "--num-beams", "3").stdout
    guided = run(*arguments, "--guidance-scale", "2", "--negative-prompt", "The dog").stdout
    negative = [model.tokenizer("The dog")["input_ids"]]
    wanted = model.generate(PROMPT, max_new_tokens=12, guidance_scale=2.0, negative_prompt_ids=negative)
    assert guided == wanted + "\n"


def test_an_assistant_drafts_what_would_have_come_anyway(run: Any, stories: str, shared_data: Path) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "20", "-q", "--greedy")
    alone, constant = run(*arguments).stdout, ("--draft-tokens", "3", "--set", "num_assistant_tokens_schedule=constant")
    for name in (stories, str(shared_data / "models/babyllama105")):  # of the same tokenizer, and of another
        shown = run(*arguments, "--assistant", name, *constant, "--show", "draft").stdout
        assert shown.startswith(alone)
        assert "drafted by assistant stand" in shown


def test_structure_comes_from_files_and_from_the_line(run: Any, stories: str, tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), "utf-8")
    arguments = ("generate", PROMPT, "-m", stories, "-n", "60", "--no-echo", "-q")
    texts = [run(*arguments, "--json-schema", given).stdout for given in (str(file), json.dumps(schema))]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["a"] in ("x", "y")
    grammar = tmp_path / "letters.lark"
    grammar.write_text('start: "ab" "c"', "utf-8")
    assert run(*arguments, "--grammar", str(grammar)).stdout == "abc\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dola-layers", "deep"), "--dola-layers='deep' names no layers"),
        (("--json-schema", "{"), "--json-schema='{' is neither a file nor JSON"),
        (("--json-schema", "[1]"), "--json-schema='[1]' is no object"),
        (("--set", "typical_q=1"), "GenerationConfig has no field 'typical_q'. Did you mean 'typical_p'?"),
        (("--set", "top_k"), "--set 'top_k' has no value"),
        (("--set", "top_k=3", "--top-k", "4"), "--set top_k says again"),
        (("--set", "regex=a", "--regex", "b"), "says again"),
        (("--set", "top_k=many"), "top_k='many'"),
        (("--early-stopping", "never", "--length-penalty", "2"), "--early-stopping, --length-penalty are about beams"),
        (("--force-word", "dog"), "--force-word is about beams"),
        (("--num-beams", "2", "--force-word", " "), "--force-word=' ' has no tokens"),
        (("--penalty-alpha", "0.6", "-t", "0.5"), "--penalty-alpha goes without random choices, and --temperature"),
        (("--num-beams", "2", "--num-beam-groups", "2", "--sample"), "--num-beam-groups goes without random choices"),
        (("--assistant", "/nowhere/at/all"), "'/nowhere/at/all' is neither a folder"),
        (("--early-exit", "2", "--prompt-lookup", "2"), "both draft"),
        (("--choice", "a", "--regex", "b"), "choice"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    run: Any, stories: str, options: tuple[str, ...], message: str
) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "8", *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_strategies_chat_too(run: Any, stories: str) -> None:
    arguments = ("chat", "Hello", "--raw", "-m", stories, "-n", "6", "-q", "--num-beams", "2")
    done = run(*arguments, "--early-stopping", "never", stdin="")
    assert done.returncode == 0
    assert done.stdout.strip()
