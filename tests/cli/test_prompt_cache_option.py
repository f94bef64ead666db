"""`loquent generate --prompt-cache FILE`: written, found again, and never overwritten where it is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import loquent

PROMPT = "Once upon a time there was a little dog who lived in a big house with a garden and many trees."


def test_what_was_read_is_kept_for_the_next_run(run: Any, stories: str, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    arguments = ("generate", PROMPT, "-m", stories, "-n", "12", "--greedy")
    expected = run(*arguments)
    first = run(*arguments, "--prompt-cache", str(path))
    assert first.stdout == expected.stdout
    assert "kept" not in first.stderr
    written = path.read_bytes()
    again = run(*arguments, "--prompt-cache", str(path))
    assert again.stdout == expected.stdout
    assert again.stderr.rstrip().endswith("32 of the prompt kept")
    assert path.read_bytes() == written
    other = run("generate", f"{PROMPT} It was", *arguments[2:], "--prompt-cache", str(path), "--json", "--quiet")
    assert other.returncode == 0
    assert other.stderr == ""


def test_a_file_of_something_else_is_left_alone(run: Any, stories: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    done = run("generate", PROMPT, "-m", stories, "--prompt-cache", str(path))
    assert done.returncode == 1
    assert "notes.txt is not a sound safetensors file" in done.stderr
    assert path.read_text() == "my notes"
    run("generate", PROMPT, "-n", "1", "--prompt-cache", str(tmp_path / "other"))
    done = run("generate", PROMPT, "-m", stories, "--prompt-cache", str(tmp_path / "other"))
    assert done.returncode == 2
    assert "was written by another model" in done.stderr
    done = run("generate", PROMPT, "The dog", "-m", stories, "--prompt-cache", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "keeps one prompt" in done.stderr


def test_text_models_take_it(stories: str, tmp_path: Path) -> None:
    path, options = tmp_path / "cache", {"do_sample": False, "max_new_tokens": 12}
    expected = loquent.load(stories).generate(PROMPT, **options)
    assert loquent.load(stories).generate(PROMPT, prompt_cache=path, **options) == expected
    run = loquent.load(stories).run([PROMPT], prompt_cache=path, **options)
    assert "".join(event.text for event in run.events()) == expected
    assert run.reused == 32
