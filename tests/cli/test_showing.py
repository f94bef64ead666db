"""`--show` and `--html`: drawn behind the text, plain in files, coloured on terminals, refused where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PROMPT = "Once upon a time"
ESCAPE = "\x1b["


@pytest.mark.parametrize(
    ("view", "options", "seen"),
    [
        ("beams", ("--num-beams", "3", "-k", "2"), ("Candidates, step by step", "■ #2", "Final ranking", "/ 8^1")),
        ("probs", (), ("Probabilities", "Others", "%")),
        ("draft", ("--prompt-lookup", "4"), ("tokens drafted by lookup stand", "✗␣")),
        ("layers", ("--dola-layers", "0,1,2"), ("Layers", "layer 0", "Chosen")),
    ],
)
def test_views_follow_the_text_and_are_plain_in_a_file(
    run: Any, stories: str, view: str, options: tuple[str, ...], seen: tuple[str, ...]
) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "8", *options)
    alone, shown = (run(*arguments, *more) for more in ((), ("--show", view)))
    assert (shown.returncode, shown.stdout[: len(alone.stdout)]) == (0, alone.stdout)
    drawn = shown.stdout[len(alone.stdout) :]
    assert all(text in drawn for text in seen), drawn
    assert ESCAPE not in shown.stdout
    assert max(map(len, drawn.splitlines())) <= 120


def test_a_file_has_every_step(run: Any, stories: str) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "60", "--show", "probs", "-q", "--no-echo")
    numbers = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert [number for number in numbers if number.isdigit()] == [str(step) for step in range(1, 61)]


def test_a_terminal_has_colours_and_folds(in_terminal: Any, stories: str) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "60", "--show", "probs")
    shown = in_terminal(*arguments, COLORTERM="truecolor", COLUMNS="80")
    assert shown.end() == 0
    assert "48;2;143;191;224m" in shown.seen
    assert "24 left out" in shown.seen
    plain = in_terminal(*arguments, NO_COLOR="1", COLUMNS="80")
    assert plain.end() == 0
    assert "24 left out" in plain.seen
    assert "38;" not in plain.seen
    assert "48;" not in plain.seen


def test_several_views_and_several_prompts(run: Any, stories: str) -> None:
    options = ("--num-beams", "2", "-n", "4", "--show", "beams", "--show", "probs", "-q")
    done = run("generate", PROMPT, "The dog", "-m", stories, *options)
    assert done.stdout.count("Final ranking") == done.stdout.count("Probabilities") == 2
    assert "1 of 2" in done.stdout
    assert "2 of 2" in done.stdout


def test_a_page_is_written(run: Any, stories: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.html"
    arguments = ("generate", PROMPT, "-m", stories, "-n", "6", "--num-beams", "2", "--html", str(file))
    done = run(*arguments)
    assert done.stderr.endswith(f"Drawn in {file}.\n")
    page = file.read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "Final ranking" in page
    assert "http://" not in page
    with_json = run(*arguments, "--json", "-q")
    assert json.loads(with_json.stdout)["finish_reason"] == "length"
    assert file.read_text("utf-8") == page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--show", "beams"), "--show beams draws a beam search, and one beam is none. Pass --num-beams 4"),
        (("--show", "draft"), "--show draft draws drafts, and nothing drafts. Pass --assistant"),
        (("--show", "layers", "--num-beams", "2"), "--show layers draws the layers that DoLa chooses. Pass --dola"),
        (("--show", "probs", "--json"), "--show draws for people, and --json prints for programs"),
        (("--html", "/nowhere/at/all.html"), "--html '/nowhere/at/all.html' is in no folder that there is"),
        (("--html", "/"), "--html '/' is a folder"),
        (("--html", "/proc/trace.html"), "--html '/proc/trace.html' cannot be written: "),
    ],
)
def test_what_could_not_be_drawn_is_refused_first(
    run: Any, stories: str, options: tuple[str, ...], message: str
) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "4", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_a_page_that_cannot_be_written_is_an_error_behind_the_text(run: Any, stories: str) -> None:
    done = run("generate", PROMPT, "-m", stories, "-n", "4", "-q", "--html", "/dev/full")
    assert done.returncode == 1
    assert done.stdout.startswith(PROMPT)
    assert done.stderr.startswith("error: could not write /dev/full: No space left on device")


def test_events_tell_of_the_trace_that_was_asked_for(run: Any, stories: str) -> None:
    arguments = ("generate", PROMPT, "-m", stories, "-n", "3", "--json", "--stream", "-q")
    plain, traced = (
        [json.loads(line) for line in run(*arguments, *more).stdout.splitlines()]
        for more in ((), ("--set", "output_trace=true"))
    )
    assert all(set(event) == {"row", "text", "tokens", "finished"} for event in plain)
    assert [event["trace"][0]["event"] for event in traced] == ["Chosen"] * 3
    assert [event["text"] for event in plain] == [event["text"] for event in traced]


def test_an_interrupted_search_is_drawn_as_far_as_it_came(in_terminal: Any, stories: str) -> None:
    running = in_terminal(
        "generate", PROMPT, "-m", stories, "-n", "450", "--set", "min_new_tokens=450", "--show", "probs"
    )
    running.read_until(PROMPT)
    running.interrupt()
    assert running.end() in (0, 130)
    assert "Probabilities" in running.seen or "No token was chosen" in running.seen
