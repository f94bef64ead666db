"""Which completions pass their tests, and pass@k; programs are run by `sandbox`, and only by it."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError
from loquent.evaluation.humaneval.lines import append_line, drop_broken_end, read_lines
from loquent.evaluation.humaneval.problems import Problem
from loquent.evaluation.humaneval.sandbox import Limits, require_sandbox, run_program


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """How likely one of `k` samples passes, drawn without putting back from `samples`, of which `passed` do.

    1 - C(samples - passed, k) / C(samples, k), unbiased (arXiv:2107.03374, section 2.1), as a sum of logarithms: the
    binomials exceed what a float holds.

    Raises:
        ArgumentError: there are fewer samples than `k`, or than have passed.
    """
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ArgumentError(f"k={k} and passed={passed} must be between 1 and 0, and the number of samples, {samples}.")
    if samples - passed < k:
        return 1.0
    return -math.expm1(sum(math.log1p(-k / left) for left in range(samples - passed + 1, samples + 1)))


def pass_rates(results: Iterable[Mapping[str, Any]], ks: Sequence[int] = (1, 10, 100)) -> dict[int, float]:
    """The mean of pass@k over problems, for each k of which every problem has samples enough.

    Args:
        results: lines with `task_id` and `passed`, as `run_tests` writes them.
        ks: the k that are wanted.
    """
    samples, passed = Counter[str](), Counter[str]()
    for result in results:
        samples[result["task_id"]] += 1
        passed[result["task_id"]] += bool(result["passed"])
    if not samples:
        return {}
    fewest = min(samples.values())
    means = {k: [pass_at_k(samples[task], passed[task], k) for task in samples] for k in ks if k <= fewest}
    return {k: math.fsum(rates) / len(rates) for k, rates in means.items()}


def run_tests(
    problems: Sequence[Problem],
    completions: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the test of each completion of a file, and write what became of it to another; **runs code of a model**.

    Each result is a line: the completion's with `passed`, `result` (why, if not) and `seconds`. Results that are there
    for the same completions are not made again.

    Args:
        problems: what the completions are for.
        completions: lines with `task_id` and `completion`.
        results: the file to write, made if need be.
        limits: of each program; None: the usual ones.
        workers: how many programs run side by side; None: as many as there are processors.
        progress: is called with the number of programs that have run, and of all.

    Raises:
        ArgumentError: programs cannot be confined here, or a completion is for no problem.
    """
    require_sandbox()
    known = {problem.task_id: problem for problem in problems}
    lines = [line for _, line in read_lines(completions)]
    for line in lines:
        if line.get("task_id") not in known or not isinstance(line.get("completion"), str):
            raise ArgumentError(
                f"{completions} has a completion for {line.get('task_id')!r}, which is no problem here."
            )
    results = Path(results)
    drop_broken_end(results)
    there = {_key(line): line for _, line in read_lines(results)} if results.exists() else {}
    missing = list({_key(line): line for line in lines if _key(line) not in there}.values())
    workers = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        running = {
            pool.submit(run_program, known[line["task_id"]].program(line["completion"]), limits or Limits()): line
            for line in missing
        }
        try:
            for done, future in enumerate(as_completed(running), 1):
                line, outcome = running[future], future.result()
                found = {
                    **line,
                    "passed": outcome.passed,
                    "result": outcome.reason,
                    "seconds": round(outcome.seconds, 3),
                }
                append_line(results, found)
                there[_key(line)] = found
                if progress is not None:
                    progress(done, len(missing))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [there[_key(line)] for line in lines]


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line.get("task_id"), line.get("sample"), line.get("completion")
