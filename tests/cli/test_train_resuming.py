"""A run that is killed or interrupted goes on as if it never had been: the same losses, evaluations and weights."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import COMMAND, environment
from cli.training_folders import by_step, history, make_folder, scratch


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("files"))


def steps_in(out: Path) -> int:
    path = out / "training.jsonl"
    return len(re.findall(r'"event": "stepped"', path.read_text())) if path.exists() else 0


def killed_after(arguments: list[str], out: Path, steps: int, wait: float, sign: int = signal.SIGKILL) -> int:
    """Run in a process of its own, which gets a signal a moment after it has told of so many steps; its exit code."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while steps_in(out) < steps and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(sign)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("lora", [False, True], ids=["weights", "adapter"])
def test_killed_runs_go_on_with_the_same_losses(files: Path, tmp_path: Path, run: Any, lora: bool) -> None:
    more = ["--eval-steps", "10", "--save-steps", "7"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def arguments(out: Path) -> list[str]:
        if not lora:
            return scratch(files, out, *more)
        data = ["--text", str(files / "story.txt"), "--model", str(files / "base"), "--max-length", "32"]
        adapter = ["--lora-rank", "2", "--lora-dropout", "0.1", "--lora-target", "all-linear", "--batch-size", "2"]
        size = ["--steps", "30", "--lr", "0.01", "--logging-steps", "1", "--no-bf16", "--threads", "1"]
        return ["train", *data, *adapter, *size, "--out", str(out), *more]

    if lora:
        assert run(*scratch(files, files / "base", "--steps", "2", "--save-steps", "0")).returncode == 0
    assert run(*arguments(whole)).returncode == 0
    choose = random.Random(7 + lora)
    for steps in (choose.randint(9, 26),) if lora else (choose.randint(1, 6), choose.randint(9, 26)):
        killed_after([*arguments(broken), "--resume"], broken, steps, choose.uniform(0, 0.02))
    assert run(*arguments(broken), "--resume").returncode == 0
    assert by_step(broken) == by_step(whole)
    assert by_step(broken, "evaluated") == by_step(whole, "evaluated")
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert (broken / "checkpoint-30/optimizer.safetensors").read_bytes() == (
        whole / "checkpoint-30/optimizer.safetensors"
    ).read_bytes()


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(files: Path, tmp_path: Path, run: Any) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ["--save-steps", "25", "--logging-steps", "4"]
    assert run(*scratch(files, whole, *more)).returncode == 0
    process = subprocess.Popen(
        [*COMMAND, *scratch(files, broken, *more)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    while steps_in(broken) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted. Go on with:\n  loquent train --text " in shown
    assert shown.rstrip().endswith("--resume")
    assert [line["reason"] for line in history(broken) if line["event"] == "finished"] == ["interrupted"]
    assert not (broken / "model.safetensors").exists()
    assert run(*scratch(files, broken, *more, "--resume")).returncode == 0
    assert by_step(broken) == by_step(whole)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_finished_run_stays_as_it_is(files: Path, tmp_path: Path, run: Any) -> None:
    arguments = scratch(files, tmp_path / "out", "--steps", "5", "--save-steps", "3")
    assert run(*arguments).returncode == 0
    before, weights = by_step(tmp_path / "out"), (tmp_path / "out/model.safetensors").read_bytes()
    done = run(*arguments, "--resume")
    assert "going on behind step 5" in done.stderr
    assert by_step(tmp_path / "out") == before
    assert len(by_step(tmp_path / "out", "evaluated")) == 1
    assert (tmp_path / "out/model.safetensors").read_bytes() == weights


def test_another_course_is_refused(files: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out"
    assert run(*scratch(files, out, "--steps", "3")).returncode == 0
    done = run(*scratch(files, out, "--steps", "6", "--resume", "--seed", "1"))
    assert done.returncode == 1
    assert "went another way" in done.stderr


@pytest.mark.slow
def test_two_processes_learn_what_one_does(files: Path, tmp_path: Path, run: Any) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run(*scratch(files, alone, "--steps", "6", "--accumulate", "2", "--eval-steps", "3")).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "loquent"]
    arguments = scratch(files, together, "--steps", "6", "--eval-steps", "3")
    done = subprocess.run(
        [*launch, *arguments], env=environment(CUDA_VISIBLE_DEVICES=""), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 6/6") == 1
    for event in ("stepped", "evaluated"):
        assert [step for step, _ in by_step(together, event)] == [step for step, _ in by_step(alone, event)]
        mine, theirs = ([loss for _, loss in by_step(out, event)] for out in (together, alone))
        assert mine == pytest.approx(theirs, abs=1e-4)
