"""The problems of HumanEval, from files in the format in which they were published; nothing is run."""

from __future__ import annotations

import os
from dataclasses import dataclass

from loquent.errors import ArgumentError
from loquent.evaluation.humaneval.lines import read_lines

_FIELDS = ("task_id", "prompt", "entry_point", "test")


@dataclass(frozen=True)
class Problem:
    """A function to be written, and the program that tests it."""

    task_id: str
    prompt: str
    """The beginning of the program: imports, the function's name and what it is to do."""
    entry_point: str
    """The function's name."""
    test: str
    """Defines `check(candidate)`, which raises where the function is wrong."""
    solution: str | None = None
    """How the prompt goes on in the published solution."""

    def program(self, completion: str) -> str:
        """What passes where the completion is right."""
        return f"{self.prompt}{completion}\n{self.test}\ncheck({self.entry_point})\n"


def read_problems(path: str | os.PathLike[str]) -> list[Problem]:
    """The problems of a file: an object a line, plain or with gzip (`HumanEval.jsonl.gz`).

    Raises:
        ArgumentError: the file cannot be read, or a line is no problem.
    """
    problems = []
    for number, line in read_lines(path):
        wrong = next((name for name in _FIELDS if not isinstance(line.get(name), str)), None)
        if wrong is not None or not line["entry_point"].isidentifier():
            raise ArgumentError(
                f"{path}, line {number}, has no {wrong or 'entry_point that is a name'}. Name a file of HumanEval."
            )
        problems.append(Problem(**{name: line[name] for name in _FIELDS}, solution=line.get("canonical_solution")))
    if not problems:
        raise ArgumentError(f"{path} has no problems. Name a file such as HumanEval.jsonl.gz.")
    if len({problem.task_id for problem in problems}) < len(problems):
        raise ArgumentError(f"{path} has the same task_id twice. Name each problem once.")
    return problems
