"""`loquent tokenizer train`: which files it reads, what it writes and tells, and what it refuses."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from loquent.tokenization import AutoTokenizer, train_tokenizer

STORIES = ["One day the fox ran.\n\nThe hen ran too.\n", "The fox and the hen were friends.\n"]
TALKS = [["Hello there!", "Hello, who is there?"], ["The hen is there."]]
SPECIAL = ("--special", "<|endoftext|>", "--special", "<|pad|>", "--special", "<|user|>", "--pad", "<|pad|>")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Arguments that name the same texts in every form that is read."""
    (tmp_path / "a.txt").write_text("<|endoftext|>\n".join(STORIES), encoding="utf-8")
    with lzma.open(tmp_path / "b.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": story}) + "\n\n" for story in STORIES))
    with gzip.open(tmp_path / "c.txt.gz", "wt", encoding="utf-8") as file:
        file.write(STORIES[0])
    turns = [json.dumps({"turns": TALKS[0]}), json.dumps({"messages": [{"role": "user", "content": TALKS[1][0]}]})]
    (tmp_path / "d.jsonl").write_text("\n".join(turns), encoding="utf-8")
    (tmp_path / "chat.jinja").write_text("{{ messages[0].content }}<|user|>", encoding="utf-8")
    texts = [str(tmp_path / name) for name in ("a.txt", "b.jsonl.xz", "c.txt.gz")]
    return [part for path in texts for part in ("--text", path)] + ["--dialogues", str(tmp_path / "d.jsonl")]


def test_every_text_of_the_files_is_learned_from(run: Any, files: list[str], tmp_path: Path) -> None:
    out, template = tmp_path / "made", str(tmp_path / "chat.jinja")
    options = ("--vocab-size", "300", *SPECIAL, "--chat-template", template, "--model-max-length", "64")
    done = run("tokenizer", "train", *files, *options, "--out", str(out))
    made = AutoTokenizer.from_pretrained(out)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{out}: {len(made):,} tokens\n"
    texts = [*STORIES, *STORIES, STORIES[0], *TALKS[0], *TALKS[1]]
    expected = train_tokenizer(texts, 300, special_tokens=SPECIAL[1:6:2], pad_token="<|pad|>")
    assert made.get_vocab() == expected.get_vocab()
    assert made.special_tokens_map == expected.special_tokens_map
    assert made.model_max_length == 64
    assert made.apply_chat_template([{"content": "Hello"}], tokenize=False) == "Hello<|user|>"
    assert made.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()


def test_options_reach_the_tokenizer(run: Any, files: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "made")
    roles = ("--bos", "<s>", "--eos", "</s>", "--unk", "<unk>", "--min-frequency", "3", "--digits", "--add-bos", "-q")
    assert run("tokenizer", "train", *files, *roles, "--out", out).stderr == ""
    made = AutoTokenizer.from_pretrained(out)
    assert made.convert_ids_to_tokens([0, 1, 2]) == [made.bos_token, made.eos_token, made.unk_token]
    assert made.tokenize("12") == ["1", "2"]
    assert made.convert_ids_to_tokens(made("12")["input_ids"]) == ["<s>", "1", "2"]
    # Fewer than asked for: no other pair stands there three times.
    assert len(made) < 400


def test_roles_may_be_left_without_a_token(run: Any, files: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "made")
    assert run("tokenizer", "train", *files, "--bos", "", "--eos", "", "--out", out).returncode == 0
    assert AutoTokenizer.from_pretrained(out).special_tokens_map == {}


def test_how_much_was_read_is_seen_in_a_terminal(in_terminal: Any, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three four\n" * 60_000, encoding="utf-8")
    started = in_terminal("tokenizer", "train", "--text", str(tmp_path / "a.txt"), "--out", str(tmp_path / "made"))
    started.read_until("1 texts, 1 M characters")
    started.read_until("tokens")
    assert started.end() == 0


def test_what_cannot_work_is_one_line(run: Any, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "made"
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"turns": ["a"]}\n{"turns": 5}\n', encoding="utf-8")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\xfe\xff")
    packed = tmp_path / "packed.txt.xz"
    packed.write_bytes(b"not packed")
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    for arguments, message in [
        ((), "There is nothing to read. Pass files: --text, --dialogues, or both."),
        (("--text", "/no/where.txt"), "/no/where.txt"),
        (("--dialogues", str(broken)), f"{broken}, line 2: 'turns' must be a list"),
        (("--text", str(broken)), f"{broken}, line 1 has no field 'text', but ['turns']"),
        (("--text", str(bad)), f"{bad}, line 1 is not UTF-8"),
        (("--text", str(packed)), f"{packed} cannot be read"),
        (("--text", str(empty)), f"{empty} has no text in it"),
        ((*files, "--vocab-size", "100"), "vocab_size=100 has no room for 256 bytes"),
        ((*files, "--special", "a", "--special", "a"), "special_tokens names 'a' twice"),
        ((*files, "--chat-template", "/no/where.jinja"), "--chat-template /no/where.jinja cannot be read"),
    ]:
        done = run("tokenizer", "train", *arguments, "--out", str(out))
        assert (done.returncode in (1, 2), done.stdout) == (True, ""), message
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert not out.exists()


@pytest.mark.parametrize("place", ["{here}/a.txt", "{here}/a.txt/below", "/proc/below"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(
    run: Any, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("loquent.training.data.read_texts", lambda *_: pytest.fail("it was read"))
    out = place.format(here=tmp_path)
    done = run("tokenizer", "train", *files, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --out {out} cannot be made: ")


def test_a_folder_with_a_tokenizer_is_left_alone(run: Any, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "made"
    out.mkdir()
    (out / "config.json").write_text("{}", encoding="utf-8")
    assert run("tokenizer", "train", *files, "--out", str(out)).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = run("tokenizer", "train", *files, "--vocab-size", "300", "--out", str(out))
    assert done.returncode == 2
    assert f"--out {out} holds a tokenizer already (tokenizer.json). Remove it, or name another folder." in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
