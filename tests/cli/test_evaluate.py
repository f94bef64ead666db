"""`loquent eval`: what its commands print and write, what they refuse, and that nothing is run unasked."""

from __future__ import annotations

import gzip
import json
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import loquent
from loquent.cli.evaluate_humaneval import RunningOptions, SamplingOptions
from loquent.evaluation import perplexity
from loquent.evaluation.humaneval import Sampling, why_unavailable

TEXT = "Once upon a time there was a little cat. It lived in a big house.\n"
NEEDS_LM_EVAL = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason='lm-eval is not installed: pip install "loquent[eval]"'
)
PROBLEMS = [
    {"task_id": "T/0", "prompt": "def f():\n    return 1", "entry_point": "f", "test": "def check(f): assert f() == 1"},
    {"task_id": "T/1", "prompt": "def g():\n    return 2", "entry_point": "g", "test": "def check(g): assert g() == 1"},
]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": "A dog."}) + "\n" + json.dumps({"body": TEXT}) + "\n")
    return [str(tmp_path / name) for name in ("a.txt", "b.jsonl")]


def test_perplexity_as_a_table(run: Any, stories: str, files: list[str]) -> None:
    done = run("eval", "perplexity", *files, "-m", stories, "--field", "body", "--length", "16", "--stride", "4")
    header, *rows = done.stdout.splitlines()
    assert header.split("  ")[0] == "file"
    model = loquent.load(stories)
    first = perplexity(model, TEXT.removesuffix("\n"), length=16, stride=4)
    second = perplexity(model, ["A dog.", TEXT], length=16, stride=4)
    for row, name, found in zip(rows, [*files, "all"], [first, second, first + second], strict=True):
        values = row.removeprefix(name).split()
        numbers = (found.perplexity, found.bits_per_byte, found.word_perplexity)
        assert list(map(float, values[:3])) == pytest.approx(numbers, rel=1e-3)
        assert list(map(int, values[3:])) == [found.tokens, found.bytes, found.documents]
    assert f"{first.tokens + second.tokens} tokens, " in done.stderr


def test_perplexity_as_json_of_a_pipe(run: Any, stories: str) -> None:
    done = run("eval", "perplexity", "-m", stories, "--json", "--count-ends", "-q", stdin=f"{TEXT}A dog.\n")
    found = perplexity(loquent.load(stories), f"{TEXT}A dog.", count_ends=True)
    [line] = map(json.loads, done.stdout.splitlines())
    assert line.pop("file") == "-"
    assert line.pop("log_probability") == pytest.approx(found.log_probability, rel=1e-5)
    for name, value in line.items():
        assert value == pytest.approx(getattr(found, name), rel=1e-4), name
    assert set(line) == {"perplexity", "bits_per_byte", "word_perplexity", "tokens", "bytes", "documents", "words"}
    assert done.stderr == ""


def test_perplexity_of_conversations(run: Any, stories: str, tmp_path: Path) -> None:
    from loquent.evaluation import dialogue_perplexity
    from loquent.training.data import JoinedByEos, read_dialogues

    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"turns": ["Hello.", "A dog was big.", "Yes."]}) + "\n")
    done = run(
        "eval", "perplexity", str(path), "-m", stories, "--dialogues", "--dialogue-format", "eos", "--json", "-q"
    )
    [line] = map(json.loads, done.stdout.splitlines())
    model = loquent.load(stories)
    found = dialogue_perplexity(model, read_dialogues([path]), written_as=JoinedByEos.of(model.tokenizer))
    assert line["log_probability"] == pytest.approx(found.log_probability, rel=1e-4)
    assert (line["tokens"], line["bytes"], line["words"]) == (found.tokens, found.bytes, found.words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("perplexity", "/no/file"), "/no/file is neither a file nor a folder"),
        (("perplexity", "A", "--dialogues"), "must end with one of"),
        (("perplexity", "B", "--dialogues", "--count-ends"), "--dialogues takes files, and not --count-ends"),
        (("perplexity", "B", "--dialogues"), "has no chat template"),
        (("perplexity", "A", "--length", "999"), "length=999"),
        (("perplexity", "A", "--length", "8", "--stride", "9"), "stride=9"),
        (("perplexity", "A", "--kv-bits", "4", "--cache", "paged"), "--kv-bits"),
        (("perplexity", "B"), "line 1 has no field 'text'"),
        (("humaneval", "--problems", "/no/file", "--out", "/no/where"), "/no/file cannot be read"),
        (("humaneval", "--problems", "A", "--out", "/no/where", "-t", "0", "--samples", "2"), "temperature=0"),
        (
            ("tasks", "--tasks", "a", "--set", "x"),
            "--set 'x'" if find_spec("lm_eval") else 'pip install "loquent[eval]"',
        ),
    ],
)
def test_what_cannot_work_is_one_line(
    run: Any, stories: str, files: list[str], arguments: tuple[str, ...], message: str
) -> None:
    done = run("eval", *({"A": files[0], "B": files[1]}.get(each, each) for each in arguments), "-m", stories, "-q")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.fixture
def humaneval(tmp_path: Path, stories: str) -> tuple[str, ...]:
    problems = tmp_path / "p.jsonl.gz"
    problems.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in PROBLEMS).encode()))
    out = str(tmp_path / "c.jsonl")
    return ("eval", "humaneval", "--problems", str(problems), "--out", out, "-m", stories, "--max-new-tokens", "2")


@pytest.mark.parametrize("command", ["humaneval", pytest.param("tasks", marks=NEEDS_LM_EVAL)])
@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("/no/where", "is in no folder that there is"),
        ("/proc/c.jsonl", "cannot be written: "),
        (".", "is a folder. Name a file, such as "),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_could_not_be_written_is_refused_before_the_model_is_loaded(
    run: Any, humaneval: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, command: str, out: str, reason: str
) -> None:
    monkeypatch.setattr(f"loquent.cli.evaluate_{command}.load_model", lambda *_: pytest.fail("it was loaded"))
    done = run(*(humaneval if command == "humaneval" else ("eval", "tasks", "--tasks", "a")), "--out", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--out {out!r} {reason}" in done.stderr


def test_results_that_could_not_be_kept_are_refused_too(run: Any, humaneval: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "c.results.jsonl").mkdir()
    done = run(*humaneval)
    assert done.returncode == 2
    assert "c.results.jsonl' is a folder" in done.stderr
    assert not (tmp_path / "c.jsonl").exists()


def test_nothing_that_a_model_wrote_is_run_unasked(
    run: Any, humaneval: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loquent.evaluation.humaneval.scoring.run_program", lambda *_: pytest.fail("it was run"))
    for further in ((), ("--no-tests",)):
        done = run(*humaneval, *further)
        assert (done.returncode, done.stdout) == (0, "")
        assert "The tests were not run" in done.stderr
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 2
    assert not list(tmp_path.glob("*.results*"))


@pytest.mark.skipif(why_unavailable() is not None, reason=f"programs cannot be confined: {why_unavailable()}")
def test_completions_are_tested_where_that_is_wanted(run: Any, humaneval: tuple[str, ...], tmp_path: Path) -> None:
    # What the model would have written, as far as a model of stories could.
    assert run(*humaneval).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    kept = "".join(json.dumps({**line, "completion": "\n"}) + "\n" for line in lines)
    (tmp_path / "c.jsonl").write_text(kept)
    done = run(*humaneval, "--run-tests", "--seconds", "9", "--workers", "1")
    assert (done.returncode, done.stdout) == (0, "pass@1\t0.5000\n")
    assert (tmp_path / "c.jsonl").read_text() == kept  # nothing was written again
    results = [json.loads(line) for line in (tmp_path / "c.results.jsonl").read_text().splitlines()]
    assert {line["task_id"]: (line["passed"], line["result"]) for line in results} == {
        "T/0": (True, "passed"),
        "T/1": (False, "AssertionError: "),
    }
    [found] = map(json.loads, run(*humaneval, "--run-tests", "--json", "-q").stdout.splitlines())
    assert found == {"pass@1": pytest.approx(0.5), "completions": 2, "passed": 1, "problems": 2}
    other = run(*humaneval, "--temperature", "0.8")
    assert other.returncode == 2
    assert "was written with" in other.stderr


@pytest.mark.parametrize("command", ["perplexity", "tasks", "humaneval"])
def test_help_of_eval_has_examples_and_exit_codes(run: Any, command: str) -> None:
    assert command in run("eval", "--help", NO_COLOR="1").stdout
    shown = run("eval", command, "--help", NO_COLOR="1").stdout
    assert f"loquent eval {command} " in shown.split("Examples")[1]
    assert "Exit codes" in shown
    assert "--model" in shown
    if command == "tasks":
        assert 'pip install "loquent[eval]"' in shown
    if command == "humaneval":
        assert "run code that a" in " ".join(shown.split())


def test_how_completions_are_drawn_has_the_defaults_of_the_library() -> None:
    assert Sampling("default", **vars(SamplingOptions())) == Sampling("default")
    assert {field.name for field in fields(Sampling)} - set(vars(SamplingOptions())) == {"model"}


def test_only_who_sits_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False])
    monkeypatch.setattr("typer.confirm", lambda *_, **__: next(answers))
    for stream in ("stdin", "stderr"):
        assert not RunningOptions().ask()
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    assert [RunningOptions(given).ask() for given in (None, None, True, False)] == [True, False, True, False]


@NEEDS_LM_EVAL
@pytest.mark.filterwarnings("ignore")
def test_tasks_of_lm_eval(run: Any, stories: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # asks pip and the machine for seconds
    (tmp_path / "data.jsonl").write_text('{"q": "Once upon a", "c": [" time", " x"], "a": 0}\n' * 3)
    task = {"task": "tiny", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test"}
    task |= {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}}, "doc_to_text": "{{q}}"}
    task |= {"doc_to_choice": "{{c}}", "doc_to_target": "a", "target_delimiter": "", "metric_list": [{"metric": "acc"}]}
    (tmp_path / "tiny.yaml").write_text(json.dumps(task))  # JSON is YAML
    arguments = ("eval", "tasks", "--tasks", "tiny", "--include-path", str(tmp_path), "-m", stories, "-q")
    done = run(*arguments, "--limit", "2", "--out", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "|tiny" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["results"]["tiny"]["acc,none"] == 1.0
    late = run(*arguments, "--limit", "2", "--out", "/dev/full")
    assert (late.returncode, late.stdout) == (1, done.stdout)
    assert late.stderr.endswith("error: could not write /dev/full: No space left on device\n")
    [line] = map(json.loads, run(*arguments, "--json").stdout.splitlines())
    assert (line["task"], line["acc,none"], line["sample_len"]) == ("tiny", 1.0, 3)
