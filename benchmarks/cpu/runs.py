"""Runs engines against one another: all of a shape alive at once, one after the other within each round."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from subprocess import CalledProcessError

from cpu.engines import OURS, Engine, Places
from cpu.limits import Limits
from cpu.measures import Measure
from cpu.processes import Child, ChildFailedError, Resident, seconds_to_first_line
from cpu.shapes import Shape

PAUSE = 0.25  # seconds in which idle threads of one engine stop spinning before the next one runs
SHORT = 4  # new tokens of the round that warms up
TEXT = "Once upon a time there was"

Key = tuple[str, str]  # an engine's name and a precision


@dataclass
class Results:
    """Everything that was measured of one shape."""

    shape: Shape
    versions: dict[str, str] = field(default_factory=dict)
    speeds: dict[Key, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    limits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: dict[Key, Resident] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def speed(self, key: Key, measure: str) -> float | None:
        """The median over the rounds, in tokens per second."""
        values = self.speeds[key][measure] if key in self.speeds else []
        return median(values) if values else None

    def limit_medians(self) -> dict[str, float]:
        return {name: median(values) for name, values in self.limits.items()}


class Contest:
    """The engines that have a shape, started and warm."""

    def __init__(self, places: Places, shape: Shape, engines: Sequence[Engine], precisions: Sequence[str]) -> None:
        self.places, self.shape = places, shape
        self.pairs = [(e, p) for p in precisions for e in engines if e.has(shape, p)]
        self.precisions = tuple(precisions)
        self.results = Results(shape)
        self.children: dict[Key, Child] = {}
        self.salt = 0

    def run(self, measures: Sequence[Measure], rounds: int, threads: int) -> Results:
        """Rounds of all measures."""
        with ExitStack() as stack:
            limits = Limits(self.places, threads)
            stack.callback(limits.close)
            for engine, precision in self.pairs:
                self.start(engine, precision, threads, stack)
            self.compare_tokens()
            for number in range(rounds + 1):
                print(f"  {self.shape.title}: " + (f"round {number}" if number else "warming up"), file=sys.stderr)
                for measure in measures:
                    if number:
                        for name, value in limits.measure(self.shape, self.precisions).items():
                            self.results.limits[name].append(value)
                    self.one_turn(measure, warm=number > 0)
        return self.results

    def start(self, engine: Engine, precision: str, threads: int, stack: ExitStack) -> None:
        """Start a child, and have it read and write a little; one that cannot is left out, with a remark."""
        key = engine.name, precision
        try:
            files = engine.files(self.places, self.shape, precision)
            child = Child(engine.serving(self.places, files, precision, threads), self.places.environment(threads))
            stack.callback(child.close)
            self.results.versions[engine.name] = child.ready()
            child.ask(task="greedy", batch=1, prompt=8, new=2, salt=self.fresh())
        except (ChildFailedError, OSError, CalledProcessError) as error:
            self.results.remarks.append(f"{engine.name} in {precision} did not start: {error}")
            return
        self.results.memory[key] = child.resident()
        self.children[key] = child

    def one_turn(self, measure: Measure, warm: bool) -> None:
        """Every engine once, with the same prompts."""
        salt = self.fresh()
        for key, child in list(self.children.items()):
            request = measure.request(self.shape, None if warm else SHORT)
            try:
                speed = child.ask(**request, salt=salt)
            except ChildFailedError as error:
                self.results.remarks.append(f"{' in '.join(key)} failed at {measure.name}: {error}")
                del self.children[key]
                continue
            if warm and speed is not None:
                self.results.speeds[key][measure.name].append(speed)
            time.sleep(PAUSE)

    def compare_tokens(self) -> None:
        """Say which engines write other tokens than transformers (or the first that is there) in float32."""
        keys = [key for key in self.children if key[1] == "float32"]
        keys.sort(key=lambda key: key[0] != "transformers")
        request = {"task": "greedy", "batch": 6, "prompt": 24, "new": 8, "salt": self.fresh()}
        written = {key: self.children[key].ask(**request) for key in keys}
        for key in keys[1:]:
            pairs = [*zip(written[keys[0]], written[key])]
            different = sum(left != right for left, right in pairs)
            if different:
                first = sum(left[0] != right[0] for left, right in pairs)
                self.results.remarks.append(
                    f"{key[0]} in float32 writes other tokens than {keys[0][0]} after {different} of {len(pairs)} "
                    f"prompts, {first} of them from the first token on"
                )

    def fresh(self) -> int:
        """A number that no measurement has had."""
        self.salt += 2
        return self.salt


def profiles(
    places: Places, shape: Shape, precisions: Sequence[str], batches: Sequence[int], threads: int
) -> Iterable[str]:
    """Where our steps spend their time, a text for each precision and batch."""
    for precision in precisions:
        files = OURS.files(places, shape, precision)
        child = Child(OURS.serving(places, files, precision, threads), places.environment(threads))
        child.ready()
        for batch in batches:
            text = child.ask(task="profile", batch=batch, salt=0)
            yield f"{shape.title}, {precision}, batch {batch}\n{text or '  runs without a plan, which has no stages'}"
        child.close()


def cold_starts(
    places: Places, shape: Shape, engines: Sequence[Engine], precisions: Sequence[str], rounds: int, threads: int
) -> dict[Key, list[float]]:
    """Seconds from the start of a process to its first token, files warm, engine by engine within each round."""
    commands: dict[Key, list[str]] = {}
    for engine in engines:
        for precision in precisions:
            if engine.has(shape, precision):
                files = engine.files(places, shape, precision)
                commands[engine.name, precision] = engine.starting(places, files, precision, threads, TEXT)
    if OURS in engines:
        commands["ours, the default model", ""] = OURS.starting(places, "default", "auto", threads, TEXT)
        options = ["--max-new-tokens", "1", "--quiet"]
        commands["loquent generate, to its end", ""] = [sys.executable, "-m", "loquent", "generate", TEXT, *options]
    times: dict[Key, list[float]] = {key: [] for key in commands}
    for number in range(rounds + 1):
        for key in list(times):
            try:
                seconds = seconds_to_first_line(commands[key], places.environment(threads))
            except ChildFailedError as error:
                print(f"  {' in '.join(key)} did not start: {error}", file=sys.stderr)
                del times[key]
                continue
            if number:  # the first round has the files read
                times[key].append(seconds)
    return times
