"""What a model writes behind the prompts of HumanEval, line by line into a file; what is there is not written again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError
from loquent.evaluation.humaneval.lines import append_line, drop_broken_end, read_lines
from loquent.evaluation.humaneval.problems import Problem
from loquent.text import TextModel

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Before which a completion ends, as published."""

AT_ONCE = 64
"""Completions that are written side by side."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    The paper draws 200 of each problem with top-p 0.95, at temperature 0.2 for pass@1, and 0.8 for pass@100.
    """

    model: str = ""  # whose they are, by name
    samples: int = 1  # of each problem
    temperature: float = 0.2  # 0: the likeliest tokens
    top_p: float = 0.95
    max_new_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ArgumentError(
                f"{self} cannot work: samples and max_new_tokens are at least 1, the temperature at least 0, and top_p "
                "between 0 and 1."
            )
        if self.temperature == 0 and self.samples > 1:
            raise ArgumentError(
                f"temperature=0 draws nothing, so that samples={self.samples} would be equal. Ask for one."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the completions of one file have in common."""
        return {name: value for name, value in asdict(self).items() if name != "samples"}

    def options(self, wanted: Sequence[tuple[Problem, int]]) -> dict[str, Any]:
        """The arguments of `generate` for some completions, which depend on nothing but themselves."""
        options: dict[str, Any] = {"stop_strings": list(STOPS), "max_new_tokens": self.max_new_tokens}
        if self.temperature == 0:
            return {**options, "do_sample": False}
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return {**options, **drawn, "do_sample": True, "seed": [self._seed(*each) for each in wanted]}

    def _seed(self, problem: Problem, sample: int) -> int:
        digest = hashlib.sha256(f"{self.seed}/{problem.task_id}/{sample}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


def missing_completions(
    problems: Sequence[Problem], path: str | os.PathLike[str], sampling: Sampling
) -> list[tuple[Problem, int]]:
    """The problems, with a sample's number each, whose completions the file does not have.

    Raises:
        ArgumentError: the file has completions that were drawn otherwise.
    """
    path, there = Path(path), set[tuple[str, int]]()
    drop_broken_end(path)
    for number, line in read_lines(path) if path.exists() else ():
        if line.get("settings") != sampling.settings:
            raise ArgumentError(
                f"{path}, line {number}, was written with {line.get('settings')}, and not with {sampling.settings}. "
                "Name another file, or ask for the same."
            )
        there.add((line["task_id"], line["sample"]))
    wanted = [(problem, sample) for sample in range(sampling.samples) for problem in problems]
    return [each for each in wanted if (each[0].task_id, each[1]) not in there]


def write_completions(
    model: TextModel,
    problems: Sequence[Problem],
    path: str | os.PathLike[str],
    sampling: Sampling,
    progress: Callable[[int, int], None] | None = None,
    **store: Any,
) -> int:
    """Add the completions that a file lacks; returns how many.

    Each is a line with `task_id` and `completion`, as published, and with `sample`, `finish_reason` and `settings`. It
    is written as soon as it is complete, so that an interrupted run goes on where it was; what a sample is depends on
    the problem, its number and the settings alone.

    Args:
        model: what `loquent.load` gives.
        problems: those that are wanted.
        path: the file, made if need be.
        sampling: how many, and how they are drawn.
        progress: is called with the number of completions there so far, and of all.
        store: how keys and values are kept, as in `generate`.

    Raises:
        ArgumentError: the file has completions that were drawn otherwise, or a prompt leaves too little room.
    """
    wanted = missing_completions(problems, path, sampling)
    _check_room(model, [problem for problem, _ in wanted], sampling.max_new_tokens)
    done = 0
    for first in range(0, len(wanted), AT_ONCE):
        part = wanted[first : first + AT_ONCE]
        texts = [""] * len(part)
        run = model.run([problem.prompt for problem, _ in part], **sampling.options(part), **store)
        with closing(run.events()) as events:
            for event in events:
                texts[event.row] += event.text
                if not event.finished:
                    continue
                problem, sample = part[event.row]
                line = {"task_id": problem.task_id, "completion": texts[event.row], "sample": sample}
                line |= {"finish_reason": event.finished, "settings": sampling.settings}
                append_line(Path(path), line)
                done += 1
                if progress is not None:
                    progress(done, len(wanted))
    return done


def _check_room(model: TextModel, problems: Sequence[Problem], new_tokens: int) -> None:
    positions = model.max_positions
    if positions is None:
        return
    for problem in dict.fromkeys(problems):
        tokens = len(model.tokenizer(problem.prompt, verbose=False)["input_ids"])
        if tokens + new_tokens - 1 > positions:
            raise ArgumentError(
                f"max_new_tokens={new_tokens} and the {tokens} tokens of {problem.task_id} exceed the model's "
                f"{positions} positions. Ask for at most {positions - tokens + 1}."
            )
