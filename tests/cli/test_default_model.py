"""The commands with the model in the package: nothing but the package is needed."""

from __future__ import annotations

import json
from typing import Any

import loquent

PROMPT = "Once upon a time"


def test_generate_without_a_model_uses_the_one_in_the_package(run: Any) -> None:
    model = loquent.load()
    done = run("generate", PROMPT, "-n", "30", "--seed", "4", "--sample", "--top-p", "0.9")
    text = model.generate(PROMPT, max_new_tokens=30, seed=4, do_sample=True, top_p=0.9)
    assert (done.returncode, done.stdout) == (0, f"{PROMPT}{text}\n")
    assert len(text) > 40
    assert " tokens, " in done.stderr


def test_several_prompts_and_a_pipe(run: Any) -> None:
    model = loquent.load()
    done = run("generate", PROMPT, "-", "-n", "12", "--greedy", "--json", "-q", stdin="The king\n")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["prompt"] for result in results] == [PROMPT, "The king"]
    options = {"do_sample": False, "max_new_tokens": 12}
    assert [result["text"] for result in results] == model.generate([PROMPT, "The king"], **options)


def test_a_conversation_of_plain_lines(run: Any) -> None:
    arguments = ("chat", "--raw", "-n", "10", "--seed", "1", "-q", "--json")
    done = run(*arguments, stdin="Where are you going?\n/retry\n")
    first, again = (json.loads(line) for line in done.stdout.splitlines())
    assert first == again
    assert first["tokens"] == 10


def test_doctor_finds_it(run: Any) -> None:
    done = run("doctor", "--json")
    found = {finding["name"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert found["default model"]["remedy"] is None
    assert done.returncode == 0


def test_the_pipeline_uses_it_too() -> None:
    [record] = loquent.pipeline("text-generation")(PROMPT, seed=1, max_new_tokens=10)
    assert record["generated_text"].startswith(PROMPT)
    assert len(record["generated_text"]) > len(PROMPT) + 10
