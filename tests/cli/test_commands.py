"""The commands over pipes and in a terminal: streams, formats, colours, interrupts, exit codes, help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import loquent
from loquent.cli.app import app
from loquent.cli.options import WritingOptions
from loquent.cli.terminal import Terminal, is_styled
from loquent.config import GenerationConfig
from loquent.native import available

PROMPT = "Once upon a time"
ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def continued(stories: str) -> str:
    text: str = loquent.load(stories).generate(PROMPT, do_sample=False, max_new_tokens=20)
    return text


def test_text_goes_to_stdout_and_statistics_to_stderr(run_process: Any, stories: str, continued: str) -> None:
    done = run_process("generate", PROMPT, "-m", stories, "-n", "20")
    assert (done.returncode, done.stdout) == (0, f"{PROMPT}{continued}\n")
    assert done.stderr.startswith("20 tokens, ")
    assert "tokens/s, first after " in done.stderr
    assert ESCAPE not in done.stdout + done.stderr


def test_reads_a_pipe_and_several_prompts(run: Any, stories: str, continued: str) -> None:
    arguments = ("generate", "-m", stories, "-n", "20", "--no-echo", "--quiet")
    done = run(*arguments, stdin=f"{PROMPT}\n")
    assert (done.stdout, done.stderr) == (f"{continued}\n", "")
    both = run(*arguments, PROMPT, "-", stdin="The dog")
    first, second = both.stdout.rstrip("\n").split("\n")
    assert (first, second) == (continued, run(*arguments, "The dog").stdout.rstrip("\n"))


def test_json_results_and_events(run: Any, stories: str, continued: str) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "20", "--json", "--quiet")
    [result] = map(json.loads, run(*arguments).stdout.splitlines())
    assert result == {"row": 0, "prompt": PROMPT, "text": continued, "tokens": 20, "finish_reason": "length"}
    events = list(map(json.loads, run(*arguments, "--stream").stdout.splitlines()))
    assert "".join(event["text"] for event in events) == continued
    assert [event["finished"] for event in events] == [None] * 19 + ["length"]
    several = run(*arguments, "The dog", "-k", "2", "-t", "1", "--seed", "1").stdout.splitlines()
    assert [json.loads(line)["row"] for line in several] == [0, 1, 2, 3]


def test_options_reach_generation(run: Any, stories: str) -> None:
    model = loquent.load(stories)
    options = ("--temperature", "0.9", "--top-k", "20", "--top-p", "0.95", "--min-p", "0.01", "--seed", "7")
    options += ("--repetition-penalty", "1.2", "--no-repeat-ngram", "3", "--min-new-tokens", "5", "--bad-word", "dog")
    done = run("generate", PROMPT, "-m", stories, "-n", "30", "--no-echo", "-q", *options)
    bad_words = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("dog", " dog")]
    assert done.stdout.rstrip("\n") == model.generate(
        PROMPT,
        do_sample=True,
        temperature=0.9,
        top_k=20,
        top_p=0.95,
        min_p=0.01,
        seed=7,
        repetition_penalty=1.2,
        no_repeat_ngram_size=3,
        min_new_tokens=5,
        max_new_tokens=30,
        bad_words_ids=bad_words,
    )
    stopped = run("generate", PROMPT, "-m", stories, "--no-echo", "-q", "--stop", " park", "--stop", "never")
    assert stopped.stdout == model.generate(PROMPT, stop_strings=[" park"]) + "\n"
    beams = run("generate", PROMPT, "-m", stories, "-n", "8", "--num-beams", "3", "--no-echo", "-q")
    assert beams.stdout == model.generate(PROMPT, num_beams=3, max_new_tokens=8) + "\n"


def test_every_writing_option_is_a_generation_setting() -> None:
    renamed = {"stop": "stop_strings", "bad_words": "bad_words_ids"}
    names = {renamed.get(field.name, field.name) for field in fields(WritingOptions)}
    assert names <= set(GenerationConfig().to_dict())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("generate", "x", "-m", "/nowhere/at/all"), 1, "error: '/nowhere/at/all' is neither a folder"),
        (("generate", "x", "--stream"), 2, "error: --stream is for --json"),
        (("generate", "x", "--temperature", "hot"), 2, "--temperature"),
        (("generate", "x", "-m", "STORIES", "-n", "2000"), 1, "error: The prompt's"),
        (("generate", "x", "-m", "STORIES", "--greedy", "--top-p", "0.5"), 2, "error: --greedy takes no random"),
        (("generate", "x", "-m", "STORIES", "-k", "2"), 2, "error: num_return_sequences=2"),
        (("chat", "x", "-m", "STORIES"), 1, "--turns-joined-by-eos"),
        (("chat", "x", "--raw", "--turns-joined-by-eos"), 2, "error: --raw and --turns-joined-by-eos"),
        (("write",), 2, "No such command"),
    ],
)
def test_errors_are_one_line_without_traceback(
    run: Any, stories: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(*(stories if argument == "STORIES" else argument for argument in arguments))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if "error: " in message:
        assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(run: Any) -> None:
    done = run("generate", "x", "-m", "/nowhere/at/all", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_closed_pipe_is_quiet(stories: str) -> None:
    command = (
        f'"$0" -m loquent generate "{PROMPT}" -m "{stories}" --json --stream -q | head -n 1; echo "${{PIPESTATUS[0]}}"'
    )
    done = subprocess.run(["bash", "-c", command, sys.executable], capture_output=True, text=True, timeout=60)
    first, code = done.stdout.splitlines()
    assert (json.loads(first)["row"], code, done.stderr) == (0, "0", "")


def test_colour_is_for_terminals_that_want_it(in_terminal: Any, stories: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = in_terminal("generate", PROMPT, "-m", stories, "-n", "3")
    assert coloured.end() == 0
    assert f"{ESCAPE}2m{PROMPT}{ESCAPE}0m" in coloured.seen
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, value, styled in (("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, value)
        assert is_styled(sys.stdout) is styled


def test_models_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    Terminal().text("a\x1b[2Jb\x07\r\n\tc\x9b")
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffd\n\tc\ufffd"


def test_neither_errors_nor_json_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Terminal().error("a template says \x1b]0;title\x07\x9b2J")
    Terminal().line({"text": "a\x1b[2J\x9b2Jé"})
    out, err = capsys.readouterr()
    assert err == "error: a template says \ufffd]0;title\ufffd\ufffd2J\n"
    assert out == '{"text": "a\\u001b[2J\\u009b2Jé"}\n'
    assert json.loads(out) == {"text": "a\x1b[2J\x9b2Jé"}


SLOWLY = {"LOQUENT_NATIVE": "0"}
"""The native core writes hundreds of tokens sooner than they can be interrupted; torch takes about a second."""


def test_interrupting_generate_keeps_what_there_is(in_terminal: Any, stories: str) -> None:
    started = in_terminal("generate", PROMPT, "-m", stories, "-n", "490", "--min-new-tokens", "490", **SLOWLY)
    started.read_until("there was a little")
    started.interrupt()
    assert started.end() == 130
    assert "Traceback" not in started.seen
    assert " tokens, " in started.seen


def test_a_conversation_in_a_terminal(in_terminal: Any, stories: str, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    chat = in_terminal("chat", "-m", stories, "--raw", "-n", "400", "--min-new-tokens", "400", NO_COLOR="1", **SLOWLY)
    chat.read_until("> ")
    chat.type("Once upon a time, there\n")
    chat.read_until(" was ")
    chat.interrupt()
    chat.read_until("\n> ")
    chat.interrupt(until="/quit leaves")
    chat.type(f"/save {saved}\n")
    chat.read_until("Saved to")
    chat.type("/undo\n")
    chat.read_until("taken back")
    chat.type("/retry\n")
    chat.read_until("nothing to answer again")
    chat.type("/help\n")
    # A Ctrl-D before the prompt is there would be lost.
    chat.read_until("Ctrl-D)\r\n> ")
    chat.type("\x04")
    assert chat.end() == 0
    first, second = json.loads(saved.read_text())["messages"]
    assert first == {"role": "user", "content": "Once upon a time, there"}
    assert second["role"] == "assistant"
    assert "was" in second["content"]


def test_a_conversation_over_a_pipe(run: Any, stories: str) -> None:
    done = run(
        "chat", "-m", stories, "--raw", "-n", "9", "--json", "-q", stdin="Once upon\n\n/retry\n/reset\nOnce upon\n"
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["role"] for answer in answers] == ["assistant"] * 3
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["content"] == loquent.load(stories).generate("Once upon\n", max_new_tokens=9).lstrip()


def test_a_long_conversation_forgets_its_beginning(run: Any, stories: str) -> None:
    line = "the dog and the cat " * 10
    done = run("chat", "-m", stories, "--raw", "-n", "100", stdin=f"{line}\n" * 4)
    assert done.returncode == 0
    assert "its oldest 2 turns are forgotten" in done.stderr


def test_doctor_names_what_is_there_and_what_is_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("doctor", "--json", HF_HUB_OFFLINE="1")
    found = {finding["name"]: finding for finding in map(json.loads, done.stdout.splitlines())}
    assert found["loquent"]["value"] == loquent.__version__
    assert found["offline mode"]["value"].startswith("on")
    assert {"numpy", "torch backend", "cpu", "memory", "gpu", "cache of the hub", "default model"} <= set(found)
    missing = [finding for finding in found.values() if finding["remedy"]]
    assert done.returncode == (1 if missing else 0)
    monkeypatch.setattr("loquent.cli.findings._version", lambda name: None if name == "numpy" else "1")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert 'pip install "numpy"' in shown.output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"LOQUENT_ISA": "portable"}, "portable (also "),
        ({"LOQUENT_THREADS": "3"}, ", 3 threads None"),
        ({"LOQUENT_ISA": "mmx"}, "unknown LOQUENT_ISA=mmx"),
        ({"LOQUENT_THREADS": "many"}, "unknown LOQUENT_THREADS=many"),
        ({"LOQUENT_NATIVE": "0"}, "missing: LOQUENT_NATIVE=0"),
    ],
)
def test_doctor_shows_the_native_core_and_settings_that_cannot_work(changes: dict[str, str], expected: str) -> None:
    if not available():
        pytest.skip("the native core is not built")
    code = "from loquent.cli.findings import _native as found; print(found().value, found().remedy)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **changes})
    assert expected in done.stdout


@pytest.mark.parametrize("command", ["generate", "chat", "doctor"])
def test_help_has_examples_and_exit_codes(run: Any, command: str) -> None:
    done = run(command, "--help", NO_COLOR="1")
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
    if command != "doctor":
        assert f"loquent {command} " in done.stdout.split("Examples")[1]
        assert "--no-repeat-ngram" in done.stdout


def test_version(run: Any) -> None:
    assert run("--version").stdout == f"loquent {loquent.__version__}\n"
