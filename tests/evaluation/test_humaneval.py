"""HumanEval: programs that pass and programs that must not, completions that go on where they were, pass@k."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import re
import sys
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

import loquent
from loquent.errors import ArgumentError
from loquent.evaluation.humaneval import (
    Limits,
    Problem,
    Sampling,
    pass_at_k,
    pass_rates,
    read_problems,
    run_program,
    run_tests,
    sandbox,
    why_unavailable,
    write_completions,
)
from loquent.evaluation.humaneval.confined import CALLS, filter_program

CONFINES = pytest.mark.skipif(why_unavailable() is not None, reason=f"programs cannot be confined: {why_unavailable()}")
QUICK = Limits(seconds=1, patience=20)
TINY = [
    Problem("Tiny/0", "Once upon a time", "once", "def check(candidate): assert candidate() == 0"),
    Problem("Tiny/1", "The dog", "dog", "def check(candidate): assert candidate() == 1"),
    Problem("Tiny/2", "One day", "day", "def check(candidate): assert candidate() == 2"),
]


@pytest.fixture(scope="module")
def problems(shared_data: Path) -> list[Problem]:
    return read_problems(shared_data / "reference/HumanEval.jsonl.gz")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return path


# --- the sandbox ------------------------------------------------------------------------------------------------------

FAILING = {
    "an endless loop": ("while True: pass", "used too much processor time|took too long"),
    "a memory hog": ("a = [0]\nwhile True: a += a", "MemoryError"),
    "a fork bomb": ("import os\nwhile True: os.fork()", "PermissionError"),
    "a process": ("import subprocess, sys; subprocess.run([sys.executable, '-c', ''])", "PermissionError"),
    "leaving": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "leaving at once": ("import os; os._exit(0)", "left early, with exit code 0"),
    "leaving in a thread": (
        "import os, threading; threading.Thread(target=os._exit, args=(0,)).start()\nwhile 1: 1",
        "0",
    ),
    "endless printing": ("while True: print('passed' * 1000)", "File too large"),
    "killing the parent": ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
    "killing everybody": ("import os; os.kill(-1, 9)", "PermissionError"),
    "the network": ("import socket; socket.create_connection(('127.0.0.1', 80))", "PermissionError"),
    "more memory": ("import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1))", "PermissionError|ValueError"),
    "another session": ("import os; os.setsid()", "PermissionError"),
    "endless recursion": ("def f(): f()\nf()", "RecursionError"),
    "a crash": ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
    "no Python": ("def", "SyntaxError"),
    "a wrong result": ("assert 1 == 2, 'no'", "AssertionError: no"),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "a report that it cannot run": (
        "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'!seccomp')\n  except OSError: pass\nos._exit(1)",
        "left early, with exit code 1",
    ),
    "a forged report": (
        "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'passed')\n  except OSError: pass\nos._exit(0)",
        "left early",
    ),
}


@CONFINES
@pytest.mark.parametrize("name", FAILING)
def test_programs_that_must_fail(name: str) -> None:
    source, reason = FAILING[name]
    outcome = run_program(source, replace(QUICK, memory=256 << 20))
    assert not outcome.passed
    assert re.search(reason, outcome.reason), outcome


@CONFINES
def test_sleeping_programs_are_ended() -> None:
    outcome = run_program("import time; time.sleep(60)", Limits(patience=0.5))
    assert (outcome.passed, outcome.reason) == (False, "took too long")
    assert outcome.seconds < 20


@CONFINES
def test_programs_may_do_what_tests_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    source = """
import os, sys, tempfile, threading, random, hashlib, asyncio
print("hello", file=sys.stderr)
with open("own.txt", "w") as file:
    file.write("x")
assert os.listdir(".") == ["own.txt"]
with tempfile.TemporaryDirectory() as folder:
    assert folder.startswith(os.getcwd())
thread = threading.Thread(target=print, args=("from a thread",)); thread.start(); thread.join()
assert asyncio.run(asyncio.sleep(0, 3)) == 3
assert "SECRET_TOKEN" not in os.environ and sys.stdin.read() == ""
assert __name__ != "__main__"
"""
    outcome = run_program(source, replace(QUICK, seconds=3))
    assert (outcome.passed, outcome.reason) == (True, "passed"), outcome
    assert "hello" in outcome.output
    assert "from a thread" in outcome.output


@CONFINES
def test_files_outside_stay_as_they_are(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    changes = [
        f"open({str(mine)!r}, 'w')",
        f"import os; os.remove({str(mine)!r})",
        f"import os; os.rename({str(mine)!r}, 'stolen')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.chmod({str(mine)!r}, 0)",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
    ]
    outcomes = [run_program(change, QUICK) for change in changes]
    if outcomes[0].passed:
        pytest.skip("this kernel has no Landlock")
    assert [outcome.reason.split(":")[0] for outcome in outcomes] == ["PermissionError"] * len(changes)
    assert mine.read_text() == "mine"
    assert mine.stat().st_mode & 0o777
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_filters_of_both_machines_name_each_call_once() -> None:
    for machine, (_, clone, refused) in CALLS.items():
        numbers = [number for group in refused.values() for number in group]
        assert len(numbers) == len(set(numbers))
        assert clone not in numbers
        program = filter_program(machine)
        assert len(program) == 8 * (8 + 2 * len(numbers) + 6)
        assert len(program) // 8 < 4096  # what the kernel takes


def test_without_confinement_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    completions = write(tmp_path / "c.jsonl", [{"task_id": "Tiny/0", "completion": "", "sample": 0}])
    monkeypatch.setattr(sandbox, "run_program", lambda *_: pytest.fail("it was run"))
    for patch, message in [
        (lambda: monkeypatch.setattr(sys, "platform", "darwin"), "darwin has no seccomp filters"),
        (lambda: monkeypatch.setattr("platform.machine", lambda: "riscv64"), "riscv64 are not known"),
    ]:
        with monkeypatch.context():
            patch()
            why_unavailable.cache_clear()
            with pytest.raises(ArgumentError, match=f"cannot be confined here: .*{message}"):
                run_tests(TINY, completions, tmp_path / "r.jsonl")
        monkeypatch.setattr(sys, "platform", "linux")
    why_unavailable.cache_clear()
    assert not (tmp_path / "r.jsonl").exists()


# --- problems ---------------------------------------------------------------------------------------------------------


def test_the_published_problems(problems: list[Problem]) -> None:
    assert len(problems) == 164
    assert problems[0].entry_point == "has_close_elements"
    assert [problem.task_id for problem in problems] == [f"HumanEval/{number}" for number in range(164)]
    program = problems[0].program("    return None\n")
    assert program.startswith(problems[0].prompt)
    assert program.endswith("\ncheck(has_close_elements)\n")


def test_files_that_are_no_problems_are_refused(tmp_path: Path) -> None:
    good = {"task_id": "a", "prompt": "p", "entry_point": "f", "test": "t"}
    for found, message in [
        ([], "has no problems"),
        ([{**good, "test": 3}], "line 1, has no test"),
        ([good, good], "the same task_id twice"),
        ([{**good, "entry_point": "f(); g"}], "entry_point that is a name"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            read_problems(write(tmp_path / "p.jsonl", found))
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b"[1]\n"))
    with pytest.raises(ArgumentError, match="line 1, is no JSON object"):
        read_problems(tmp_path / "p.jsonl.gz")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_problems(tmp_path / "absent.jsonl")


def solved(problems: list[Problem], path: Path) -> Path:
    return write(path, [{"task_id": each.task_id, "completion": each.solution, "sample": 0} for each in problems])


def passing(problems: list[Problem], folder: Path, limits: Limits) -> list[str]:
    found = run_tests(problems, solved(problems, folder / "c.jsonl"), folder / "r.jsonl", limits=limits)
    return [f"{line['task_id']}: {line['result']}" for line in found if not line["passed"]]


@CONFINES
def test_published_solutions_pass_and_broken_ones_do_not(problems: list[Problem], tmp_path: Path) -> None:
    some = problems[::20]
    assert passing(some, tmp_path, Limits(patience=60)) == []
    broken = [{"task_id": each.task_id, "completion": "    return None\n", "sample": 0} for each in some]
    found = run_tests(some, write(tmp_path / "b.jsonl", broken), tmp_path / "rb.jsonl", limits=Limits(patience=60))
    assert not any(line["passed"] for line in found)
    assert all(line["result"] != "passed" for line in found)


@CONFINES
@pytest.mark.slow
def test_all_published_solutions_pass(problems: list[Problem], tmp_path: Path) -> None:
    assert passing(problems, tmp_path, Limits(patience=60)) == []


@CONFINES
def test_results_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("T/0", "def f():\n", "f", "def check(candidate): assert candidate() == 1\n")
    there = [{"task_id": "T/0", "completion": f"    return {value}\n", "sample": value} for value in range(3)]
    completions, results = write(tmp_path / "c.jsonl", there), tmp_path / "r.jsonl"
    told: list[tuple[int, int]] = []
    first = run_tests([problem], completions, results, progress=lambda *numbers: told.append(numbers))
    assert [line["passed"] for line in first] == [False, True, False]
    assert told == [(1, 3), (2, 3), (3, 3)]
    text = results.read_text()
    results.write_text(text[:-20])  # as it is left by a kill in the middle of a line
    again = run_tests([problem], completions, results, progress=lambda *numbers: told.append(numbers))
    assert told[3:] == [(1, 1)]
    assert [line["passed"] for line in again] == [False, True, False]
    monkeypatch.setattr("loquent.evaluation.humaneval.scoring.run_program", lambda *_: pytest.fail("it was run"))
    assert run_tests([problem], completions, results) == again
    with pytest.raises(ArgumentError, match="completion for 'T/0', which is no problem here"):
        run_tests(TINY, completions, results)


# --- completions ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(shared_data: Path) -> Any:
    return loquent.load(shared_data / "models/stories260k")


SAMPLING = Sampling("stories", samples=2, temperature=0.8, max_new_tokens=12)


def test_completions_are_what_the_model_writes(model: Any, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    told: list[tuple[int, int]] = []
    assert write_completions(model, TINY, out, SAMPLING, lambda *numbers: told.append(numbers)) == 6
    assert told[-1] == (6, 6)
    found = {(line["task_id"], line["sample"]): line["completion"] for line in lines(out)}
    assert len(found) == 6
    assert len(set(found.values())) > 3
    greedy = replace(SAMPLING, samples=1, temperature=0)
    write_completions(model, TINY, tmp_path / "g.jsonl", greedy)
    expected = {each.task_id: model.generate(each.prompt, do_sample=False, max_new_tokens=12) for each in TINY}
    assert {line["task_id"]: line["completion"] for line in lines(tmp_path / "g.jsonl")} == expected


def test_an_interrupted_run_goes_on_with_the_same_samples(model: Any, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "c.jsonl"
    write_completions(model, TINY, whole, SAMPLING)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_completions(model, TINY, out, SAMPLING, stop)
    assert len(lines(out)) == 2
    with out.open("a") as file:
        file.write('{"task_id": "Tiny/')  # as it is left by a kill in the middle of a line
    assert write_completions(model, TINY, out, SAMPLING) == 4
    assert write_completions(model, TINY, out, SAMPLING) == 0
    key = itemgetter("task_id", "sample")
    assert sorted(lines(out), key=key) == sorted(lines(whole), key=key)
    more = replace(SAMPLING, samples=3)  # more samples of the same
    assert write_completions(model, TINY, out, more) == 3
    with pytest.raises(ArgumentError, match=r"line 1, was written with .*'temperature': 0\.8.* and not with .*0\.9"):
        write_completions(model, TINY, out, replace(SAMPLING, temperature=0.9))


def test_completions_end_before_another_function(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = model.generate("Once upon a time", do_sample=False, max_new_tokens=12)[8:12]
    monkeypatch.setattr("loquent.evaluation.humaneval.completions.STOPS", (stop,))
    write_completions(model, TINY[:1], tmp_path / "c.jsonl", replace(SAMPLING, samples=1, temperature=0))
    [line] = lines(tmp_path / "c.jsonl")
    assert line["finish_reason"] == "stop_string"
    assert stop not in line["completion"]


def test_what_cannot_be_sampled_is_said(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="temperature=0 draws nothing"):
        Sampling(samples=2, temperature=0)
    with pytest.raises(ArgumentError, match="cannot work"):
        Sampling(top_p=0)
    with pytest.raises(ArgumentError, match=r"tokens of Tiny/0 exceed the model's 512 positions"):
        write_completions(model, TINY, tmp_path / "c.jsonl", replace(SAMPLING, max_new_tokens=512))
    assert not (tmp_path / "c.jsonl").exists()


# --- pass@k -----------------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_share_of_draws_with_one_that_passes() -> None:
    for samples in range(1, 9):
        for passed in range(samples + 1):
            for k in range(1, samples + 1):
                draws = list(itertools.combinations(range(samples), k))
                share = sum(any(each < passed for each in draw) for draw in draws) / len(draws)
                assert pass_at_k(samples, passed, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_of_many_samples() -> None:
    for samples, passed, k in [(200, 1, 1), (200, 7, 100), (100_000, 3, 10), (100_000, 1, 1)]:
        exact = 1 - math.comb(samples - passed, k) / math.comb(samples, k)
        assert pass_at_k(samples, passed, k) == pytest.approx(exact, rel=1e-9)
    for arguments in [(5, 0, 6), (5, 6, 1), (5, 1, 0), (5, -1, 1)]:
        with pytest.raises(ArgumentError, match=f"k={arguments[2]}"):
            pass_at_k(*arguments)


def test_rates_are_means_over_problems() -> None:
    found = [{"task_id": "a", "passed": True}] * 3 + [{"task_id": "a", "passed": False}] * 7
    found += [{"task_id": "b", "passed": False}] * 10
    assert pass_rates(found) == pytest.approx({1: 0.15, 10: 0.5})
    assert pass_rates(found[:-1]) == pytest.approx({1: 0.15})
    assert pass_rates([]) == {}
