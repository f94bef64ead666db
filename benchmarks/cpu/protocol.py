"""What a process that holds an engine answers, a line for each line; knows no engine and only the standard library.

Prompts are drawn anew for every measurement, so that an engine which remembers prompts has nothing to remember.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Prompt = list[int]
SMALLEST_VOCABULARY = 32000


class Engine(Protocol):
    """A model that one library has loaded. What a library cannot do raises NotImplementedError."""

    version: str

    def decode(self, prompts: Sequence[Prompt], new: int) -> Rate:
        """Write `new` tokens to each of the prompts, all in one batch, greedily."""

    def prefill(self, prompt: Prompt) -> None:
        """Read a prompt and find the token after it."""

    def beam(self, prompt: Prompt, width: int, new: int) -> None:
        """Write `new` tokens by beam search."""

    def greedy(self, prompt: Prompt, new: int) -> list[int]:
        """The `new` tokens after a prompt."""

    def profile(self, batch: int) -> str:
        """Where the time of the steps at this batch goes, for people."""


@dataclass
class Rate:
    """Tokens per second from the first token of the last row to the last of the first, without any prefill."""

    rows: int
    new: int
    _times: list[list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self._times = [[] for _ in range(self.rows)]

    def tick(self, row: int, tokens: int = 1) -> None:
        """So many tokens of a row are there now."""
        self._times[row] += [time.perf_counter()] * tokens

    def tick_all(self) -> None:
        """Every row has got a token."""
        now = time.perf_counter()
        for times in self._times:
            times.append(now)

    def __float__(self) -> float:
        short = [len(times) for times in self._times if len(times) < self.new]
        if short:
            raise RuntimeError(f"wrote {short[0]} tokens instead of {self.new}")
        start = max(times[0] for times in self._times)
        end = min(times[self.new - 1] for times in self._times)
        return sum(start < moment <= end for times in self._times for moment in times) / (end - start)


def prompts(count: int, length: int, salt: int) -> list[Prompt]:
    """Random ids that every shape has; the same for the same salt."""
    draw = random.Random(salt)
    return [[draw.randrange(5, SMALLEST_VOCABULARY - 5) for _ in range(length)] for _ in range(count)]


def answer(engine: Engine, request: dict[str, Any]) -> Any:
    """What one request asks for: tokens per second, or the thing itself."""
    task, salt = request["task"], request["salt"]
    if task == "greedy":
        return [engine.greedy(prompt, request["new"]) for prompt in prompts(request["batch"], request["prompt"], salt)]
    if task == "profile":
        return engine.profile(request["batch"])
    if task == "decode":
        return float(engine.decode(prompts(request["batch"], request["prompt"], salt), request["new"]))
    [prompt] = prompts(1, request["prompt"], salt)
    start = time.perf_counter()
    if task == "prefill":
        engine.prefill(prompt)
        return len(prompt) / (time.perf_counter() - start)
    engine.beam(prompt, request["width"], 1)
    after_prompt = time.perf_counter()
    engine.beam(prompts(1, request["prompt"], salt + 1)[0], request["width"], request["new"])
    return (request["new"] - 1) / ((time.perf_counter() - after_prompt) - (after_prompt - start))


def serve(engine: Engine) -> None:
    """Answer the lines of stdin; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(engine.version), file=answers, flush=True)
    for line in sys.stdin:
        try:
            print(json.dumps(answer(engine, json.loads(line))), file=answers, flush=True)
        except NotImplementedError:
            print("null", file=answers, flush=True)
