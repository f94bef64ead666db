"""`loquent train` from files to a model that writes: all forms of data, what is shown, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cli.training_folders import by_step, history, make_folder, scratch
from loquent import AutoModelForCausalLM, AutoTokenizer
from loquent.cli import training_options
from loquent.training import TrainingArguments
from loquent.training.arguments import OPTIMIZERS, SCHEDULES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def trained(files: Path) -> Path:
    """A model that was trained from scratch by the command, evaluated twice."""
    from typer.testing import CliRunner

    from loquent.cli.app import app

    out = files / "trained"
    done = CliRunner().invoke(app, scratch(files, out, "--eval-steps", "15", "--save-steps", "20"))
    assert done.exit_code == 0, done.output
    return out


def test_a_model_from_scratch_learns_and_loads(trained: Path, run: Any) -> None:
    losses = [loss for _, loss in by_step(trained)]
    assert len(losses) == 30
    assert sum(losses[-5:]) / 5 < losses[0] - 1
    assert [step for step, _ in by_step(trained, "evaluated")] == [15, 30]
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    # The file names no special tokens, and so they are the tokenizer's.
    assert model.config.eos_token_id == tokenizer.eos_token_id == 2
    done = run("generate", "the cat", "--model", str(trained), "-n", "4", "--greedy")
    assert done.returncode == 0
    assert done.stdout.startswith("the cat")


def test_the_folder_has_the_curve_and_the_last_checkpoints(trained: Path) -> None:
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in trained.glob("checkpoint-*")) == ["checkpoint-20", "checkpoint-30"]
    assert [line["event"] for line in history(trained)[:2]] == ["started", "stepped"]
    assert history(trained)[-1] == {"event": "finished", "step": 30, "reason": "done"}


def test_conversations_by_the_template_count_the_answers_only(files: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out"
    done = run(*scratch(files, out, "--steps", "4", "--json", text=False))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["started", *["stepped"] * 4, "evaluated", "saved", "finished"]
    assert events == history(out)
    assert f"loquent chat --model {out}" in done.stderr
    answers = events[1]["loss"]
    run(*scratch(files, tmp_path / "all", "--steps", "4", "--all-turns", text=False))
    assert by_step(tmp_path / "all")[0][1] != answers


def test_conversations_joined_by_eos_are_learned_whole(files: Path, tmp_path: Path, run: Any) -> None:
    more = ["--dialogue-format", "eos", "--steps", "2", "--text", str(files / "story.txt"), "--eval-share", "0"]
    done = run(*scratch(files, tmp_path / "out", *more, text=False))
    assert done.returncode == 0, done.stderr
    assert "texts: 60 read" in done.stderr
    assert "conversations: 60 read" in done.stderr
    assert "nothing is held out" in done.stderr
    assert "step 2/2  loss " in done.stderr


def test_quiet_is_quiet_and_says_nothing_on_stdout(files: Path, tmp_path: Path, run: Any) -> None:
    done = run(*scratch(files, tmp_path / "out", "--steps", "1", "--quiet"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_sees_a_bar_and_the_evaluations_stay(files: Path, tmp_path: Path, in_terminal: Any) -> None:
    seen = in_terminal(*scratch(files, tmp_path / "out", "--eval-steps", "15"), COLUMNS="120")
    seen.read_until("done after step 30", 60)
    assert seen.end() == 0
    assert "step 15: held-out loss" in seen.seen
    assert "30/30" in seen.seen
    assert "tokens/s" in seen.seen


def test_an_adapter_is_trained_saved_and_merged(files: Path, trained: Path, tmp_path: Path, run: Any) -> None:
    data = ["--text", str(files / "story.txt"), "--no-bf16", "--max-length", "32", "--batch-size", "2", "--lr", "0.01"]
    options = ["train", *data, "--model", str(trained), "--lora-rank", "2", "--steps", "3", "--lora-target", "q_proj"]
    done = run(*options, "--out", str(tmp_path / "adapter"))
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["target_modules"]) == (2, 4, ["q_proj"])
    assert not (tmp_path / "adapter/config.json").exists()
    assert run(*options, "--merge", "--out", str(tmp_path / "merged")).returncode == 0
    assert not (tmp_path / "merged/adapter_config.json").exists()
    merged = run("adapter", "merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "apart"))
    assert merged.returncode == 0, merged.stderr
    assert "2 layers merged" in merged.stderr
    name = "model.safetensors"
    assert (tmp_path / "apart" / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()
    assert (tmp_path / "apart" / name).read_bytes() != (trained / name).read_bytes()
    texts = {
        run("generate", "the", "-n", "8", "--greedy", "--model", str(tmp_path / name)).stdout
        for name in ("adapter", "merged", "apart")
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text", "story.txt", "--out", "trained"], "holds a run. Pass --resume to go on with it"),
        (["--out", "new"], "There is nothing to learn from. Pass --text FILE, --dialogues FILE, or both."),
        (["--text", "none.txt", "--out", "new"], "none.txt is neither a file nor a folder"),
        (["--text", "story.txt", "--all-turns", "--out", "new"], "are about conversations. Pass --dialogues"),
        (["--text", "story.txt", "--config", "config.json", "--out", "new"], "needs a tokenizer. Pass --tokenizer"),
        (["--text", "story.txt", "--config", "c", "--model", "m", "--out", "new"], "Leave one of them out"),
        (["--text", "story.txt", "--merge", "--out", "new"], "--merge is about an adapter. Pass --lora-rank"),
        (["--text", "story.txt", "--early-stop", "2", "--out", "new"], "Give eval_steps"),
        (["--text", "story.txt", "--warmup-steps", "2", "--warmup-ratio", "0.1", "--out", "new"], "say the same thing"),
        (["--text", "story.txt", "--out", "story.txt"], "story.txt cannot be made"),
        (["--text", "story.txt", "--out", "story.txt/new"], "story.txt is a file. Name another folder."),
        (["--text", "story.txt", "--out", "/proc"], "--out /proc cannot be written in"),
        (["--text", "story.txt", "--out", "tokenizer/.."], "holds a model that is of no run"),
        (["--text", "story.txt", "--eval-text", "story.txt", "--eval-share", "0.1", "--out", "new"], "Leave one out"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    files: Path, trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    done = run("train", *more)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (files / "new").exists()


def test_a_config_that_does_not_fit_the_tokenizer_is_refused(files: Path, tmp_path: Path, run: Any) -> None:
    config = json.loads((files / "config.json").read_text())
    small, other = tmp_path / "small.json", tmp_path / "other.json"
    small.write_text(json.dumps({**config, "vocab_size": 100}))
    other.write_text(json.dumps({**config, "eos_token_id": 9}))
    begin = ["train", "--text", str(files / "story.txt"), "--tokenizer", str(files / "tokenizer"), "--out"]
    done = run(*begin, str(tmp_path / "out"), "--config", str(small))
    assert (done.returncode, "has vocab_size=100, and the tokenizer has" in done.stderr) == (2, True)
    done = run(*begin, str(tmp_path / "out2"), "--config", str(other))
    assert (done.returncode, "has eos_token_id=9, and the tokenizer's EOS" in done.stderr) == (2, True)


def test_a_compiler_that_is_missing_is_asked_for_before_data_are_read(
    files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("loquent.cli.training_data.DataOptions.examples", lambda *_: pytest.fail("they were read"))
    done = run(*scratch(files, tmp_path / "out", "--compile"))
    assert done.returncode == 2
    assert "needs a C++ compiler on a CPU" in done.stderr


def test_a_library_that_is_missing_is_named_at_once(
    files: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"torch", "accelerate", "tensorboard"}
    monkeypatch.setattr("loquent.cli.train.find_spec", lambda name: name if name in found else None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for library, purpose in (
        ("tensorboard", "--tensorboard"),
        ("accelerate", "training on 2 devices"),
        ("torch", "tr"),
    ):
        found.discard(library)
        done = run(*scratch(files, tmp_path / "out", "--tensorboard"))
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {purpose}")
        assert f'needs {library}, which is not installed. Run: pip install "loquent[train]"' in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_field_of_the_arguments_is_an_option_with_the_same_default() -> None:
    steps, learning = training_options.StepOptions(), training_options.LearningOptions()
    keeping, effort = training_options.KeepingOptions(), training_options.EffortOptions()
    given = {name for group in (steps, learning, keeping, effort) for name in vars(group)}
    # These are said by --out, --resume, --max-length and --no-packing.
    elsewhere = {"output_dir", "resume_from_checkpoint", "max_length", "packing"}
    assert {field.name for field in fields(TrainingArguments)} - given == elsewhere
    made = training_options.training_arguments(Path("out"), steps, learning, keeping, effort)
    assert made == TrainingArguments(Path("out"))
    assert tuple(training_options.OptimizerName) == OPTIMIZERS
    assert tuple(training_options.ScheduleName) == SCHEDULES
