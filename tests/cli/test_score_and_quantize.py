"""`loquent score` and `loquent quantize`: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import loquent
from loquent.native import why_unavailable

TEXT = "Once upon a time there was a cat."
NEEDS_CORE = pytest.mark.skipif(why_unavailable() is not None, reason=f"no native core: {why_unavailable()}")


def test_scores_are_those_of_the_model(run: Any, stories: str) -> None:
    model = loquent.load(stories)
    done = run("score", TEXT, "A dog.", "-m", stories, "--given", "Hello. ")
    rows = [list(map(float, line.split("\t"))) for line in done.stdout.splitlines()]
    for row, text in zip(rows, [TEXT, "A dog."], strict=True):
        score = model.score(text, given="Hello. ")
        assert row == pytest.approx([score.perplexity, score.total, len(score.ids), score.bits_per_byte], rel=1e-4)


def test_scores_as_json_of_a_pipe(run: Any, stories: str) -> None:
    [line] = run("score", "-m", stories, "--json", stdin=f"{TEXT}\n").stdout.splitlines()
    found = json.loads(line)
    assert found["text"] == TEXT
    assert "".join(token for token, _ in found["token_log_probabilities"]) == TEXT
    assert sum(number for _, number in found["token_log_probabilities"]) == pytest.approx(found["log_probability"])
    assert found["perplexity"] == pytest.approx(math.exp(-found["log_probability"] / found["tokens"]))


def test_a_text_without_tokens_has_no_score(run: Any, stories: str) -> None:
    done = run("score", "-m", stories, stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no token that follows another" in done.stderr


@NEEDS_CORE
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_packed_folder_runs_as_its_precision_does(run: Any, stories: str, precision: str, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    done = run("quantize", stories, str(out), "--precision", precision)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{out}: {size / 1e6:,.1f} MB of weights in {precision}\n"
    options = ("-n", "12", "-q", "--no-echo", "--greedy")
    packed = run("generate", TEXT, "-m", str(out), *options)
    assert packed.stdout == run("generate", TEXT, "-m", stories, "--precision", precision, *options).stdout
    assert len(packed.stdout) > 10


@NEEDS_CORE
def test_what_cannot_be_packed_is_one_line(run: Any, stories: str, tmp_path: Path) -> None:
    out = str(tmp_path / "packed")
    assert run("quantize", stories, out, "-q").stderr == ""
    for arguments, code, message in [
        (("quantize", out, str(tmp_path / "again")), 2, "is packed in int8"),
        (("quantize", stories, stories), 2, "is the model's own folder"),
        (("quantize", stories, "/proc/packed"), 2, "OUT /proc/packed cannot be made: "),
        (("quantize", "/nowhere/at/all", out), 1, "is neither a folder"),
        (("quantize", stories, out, "--max-shard-size", "many"), 2, "max_shard_size='many'"),
        (("quantize", stories, out, "--precision", "int2"), 2, "int2"),
        (("generate", "x", "-m", out, "--precision", "int4"), 2, "precision='int4'"),
    ]:
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_notice_says_where_pytorch_steps_in(run: Any, stories: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_NATIVE", "0")
    done = run("generate", TEXT, "-m", stories, "-n", "2", "--no-echo")
    assert done.returncode == 0
    assert "PyTorch runs the model, not the native core: LOQUENT_NATIVE=0." in done.stderr
    assert run("generate", TEXT, "-m", stories, "-n", "2", "--no-echo", "-q").stderr == ""
