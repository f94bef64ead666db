"""How `loquent train` shows a run: a live bar on terminals, plain lines elsewhere, or JSON; it writes no files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

from loquent.cli.terminal import Terminal, is_styled
from loquent.training.events import Evaluated, Event, Finished, Saved, Started, Stepped
from loquent.training.reports.history import facts

T = TypeVar("T")
# The share of the old mean in the new one, at each event of a step.
_SMOOTHING = 0.9
_SECONDS_BETWEEN_COUNTS = 0.1


class Display(Protocol):
    """What a command shows of a run; called with each event."""

    def __call__(self, event: Event) -> None:
        """Show an event."""

    def watch(self, title: str, items: Iterable[T]) -> Iterator[T]:
        """The items, while it is shown how many have come."""

    def close(self) -> None:
        """Nothing more comes."""


def display_for(terminal: Terminal, as_json: bool) -> Display:
    """JSON where it is asked for, a bar on a terminal that can draw one, and plain lines elsewhere."""
    if as_json:
        return JsonDisplay(terminal)
    if is_styled(sys.stderr) and not terminal.quiet:
        return LiveDisplay(terminal)
    return PlainDisplay(terminal)


class JsonDisplay:
    """Each event as a line on stdout."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __call__(self, event: Event) -> None:
        self._terminal.line(facts(event))

    def watch(self, _: str, items: Iterable[T]) -> Iterator[T]:
        """The items."""
        return iter(items)

    def close(self) -> None:
        """Nothing is left open."""


class PlainDisplay:
    """A line for each event on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._mean = _RunningMean()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._terminal.notice(_step_line(event, self._mean.of(event.loss)))
        else:
            _tell(event, self._terminal)

    def watch(self, title: str, items: Iterable[T]) -> Iterator[T]:
        """The items, and at the end how many they were."""
        count = 0
        for item in items:
            count += 1
            yield item
        self._terminal.notice(f"{title}: {count:,} read")

    def close(self) -> None:
        """Nothing is left open."""


class LiveDisplay:
    """A bar on the terminal's last line; what stays is written above it."""

    def __init__(self, terminal: Terminal) -> None:
        from rich.console import Console

        self._terminal = terminal
        self._console = Console(file=sys.stderr)
        self._bar: Any = None
        self._task: Any = None
        self._mean = _RunningMean()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            _tell(event, self._terminal)
            self._begin(event)
        elif isinstance(event, Stepped):
            facts = _step_facts(event, self._mean.of(event.loss))
            self._bar.update(self._task, completed=event.step, facts=facts)
        elif isinstance(event, Finished):
            self.close()
            _tell(event, self._terminal)
        else:
            # What is printed through the console goes above the bar.
            self._console.print(_event_line(event), style="dim" if isinstance(event, Saved) else "", highlight=False)

    def watch(self, title: str, items: Iterable[T]) -> Iterator[T]:
        """The items, while their number is shown."""
        count, told = 0, 0.0
        with self._console.status(f"reading {title}") as status:
            for item in items:
                count += 1
                if (now := time.monotonic()) - told > _SECONDS_BETWEEN_COUNTS:
                    told = now
                    status.update(f"reading {title}: {count:,}")
                yield item
        self._terminal.notice(f"{title}: {count:,} read")

    def close(self) -> None:
        """Take the bar's hold off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, event: Started) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bar = Progress(*columns, console=self._console, expand=True, refresh_per_second=4)
        self._task = self._bar.add_task("", total=event.steps, completed=event.first_step, facts="")
        self._bar.start()


class _RunningMean:
    """The mean of all values so far, in which the older ones weigh less."""

    def __init__(self) -> None:
        self._total = self._weight = 0.0

    def of(self, value: float) -> float:
        """The mean with one value more."""
        self._total = _SMOOTHING * self._total + (1 - _SMOOTHING) * value
        self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        return self._total / self._weight


def _tell(event: Event, terminal: Terminal) -> None:
    terminal.notice(_event_line(event))


def _event_line(event: Event) -> str:
    if isinstance(event, Started):
        return _start_line(event)
    if isinstance(event, Evaluated):
        best = " (best so far)" if event.best else ""
        return f"step {event.step:,}: held-out loss {event.loss:.4f}, perplexity {event.perplexity:.4g}{best}"
    if isinstance(event, Saved):
        return f"step {event.step:,}: {event.folder} written"
    assert isinstance(event, Finished)
    return f"{event.reason} after step {event.step:,}"


def _start_line(event: Started) -> str:
    trained = "" if event.trainable == event.parameters else f", {event.trainable:,} of them trained"
    where = f", going on behind step {event.first_step:,}" if event.first_step else ""
    padding = f", {event.padding:.1%} padding" if event.padding >= 0.001 else ""
    return f"{event.parameters:,} parameters{trained}; {event.steps:,} steps{where}{padding}"


def _step_line(event: Stepped, mean: float) -> str:
    return f"step {event.step:,}/{event.steps:,}  {_step_facts(event, mean)}"


def _step_facts(event: Stepped, mean: float) -> str:
    return (
        f"loss {event.loss:.4f} (mean {mean:.4f})  lr {event.learning_rate:.2e}  "
        f"{_count(event.tokens_per_second)} tokens/s  {_duration(event.seconds_left)} left"
    )


def _count(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 10_000 else f"{value:.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
