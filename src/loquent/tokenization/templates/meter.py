"""The budget of one rendering: every operation of a template is charged here before it runs; nothing is rendered.

A template comes from a model's folder, so it is hostile until shown otherwise. It may only use operations whose cost
is known beforehand, and their sum is bounded: a unit is about a character copied, and every value that a template
makes has been paid for. So neither time nor memory can run away, whatever the template does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jinja2.runtime import Macro
from jinja2.utils import Namespace

from loquent.errors import TemplateError

V = TypeVar("V")
# An entry of a list or a dictionary costs this many characters: its slot, and the object in it.
ENTRY = 16
# How many units pass between two looks at the clock.
_CLOCK_EVERY = 20_000


@dataclass(frozen=True)
class Caps:
    """What one rendering may use.

    seconds: of wall time.
    output: characters of the text that comes out.
    work: units (about characters copied) beyond what the messages themselves weigh.
    source: characters of the template.
    """

    seconds: float = 5.0
    output: int = 16 << 20
    work: int = 64 << 20
    source: int = 256 << 10


CAPS = Caps()


@dataclass
class Meter:
    """What a rendering has used so far."""

    caps: Caps
    left: float = 0
    out: int = 0
    marked: list[tuple[int, int]] = field(default_factory=list)
    _until_clock: float = _CLOCK_EVERY
    _deadline: float = field(default=0.0)

    def start(self, inputs: Any) -> None:
        """Begin: what the caller passes may be read a few times over for free."""
        self._deadline = time.monotonic() + self.caps.seconds
        self.left = self.caps.work + 32 * weight(inputs, 1 << 40)

    def charge(self, units: float) -> None:
        """Pay for an operation before it runs.

        Raises:
            TemplateError: the budget or the time is spent.
        """
        # An operation that shrinks its value gives nothing back.
        units = max(units, 0)
        self.left -= units
        if self.left < 0:
            raise TemplateError(
                "The chat template was stopped: it makes more text or longer lists than any chat needs "
                f"({self.caps.work >> 20} million units of work)."
            )
        self._until_clock -= units
        if self._until_clock < 0:
            self._until_clock = _CLOCK_EVERY
            if time.monotonic() > self._deadline:
                raise TemplateError(
                    f"The chat template was stopped: it was not done after {self.caps.seconds:g} seconds."
                )

    def write(self, length: int) -> None:
        """Count characters of the result.

        Raises:
            TemplateError: there are too many.
        """
        self.out += length
        if self.out > self.caps.output:
            raise TemplateError(
                f"The chat template was stopped: it wrote more than {self.caps.output >> 20} MiB of text."
            )

    def mark(self, length: int) -> None:
        """Note that the next `length` characters of the result are the assistant's."""
        self.marked.append((self.out, self.out + length))

    def made(self, value: V) -> V:
        """Pay for a value that was made, and pass it on; what is inside it has been paid for already."""
        self.charge(size(value))
        return value

    def reads(self, *values: Any) -> None:
        """Pay for an operation that goes through all that is in its values: printing, comparing, hashing."""
        for value in values:
            self.charge(weight(value, self.left))


_current: ContextVar[Meter] = ContextVar("template_meter")


def meter() -> Meter:
    """The meter of the rendering that runs in this thread."""
    try:
        return _current.get()
    except LookupError:
        # Outside of a rendering (a filter folded while compiling) nothing may run up a cost.
        raise TemplateError("A template's operations run while it is rendered only.") from None


@contextmanager
def metered(caps: Caps, inputs: Any) -> Iterator[Meter]:
    """Run a rendering under its own meter."""
    running = Meter(caps)
    running.start(inputs)
    token = _current.set(running)
    try:
        yield running
    finally:
        _current.reset(token)


def size(value: Any) -> float:
    """What a value alone takes, in units, without what is in it."""
    if isinstance(value, str | bytes):
        return len(value) + 1
    if isinstance(value, Mapping | list | tuple | Set):
        return ENTRY * (len(value) + 1)
    if isinstance(value, int):
        return 1 + value.bit_length() / 8
    return ENTRY


def weight(value: Any, limit: float) -> float:
    """The size of a value with all that is in it, in units; the walk stops soon after `limit`.

    What a value shares is counted each time it is met, as whoever prints or compares it would meet it: a list that
    holds one list twice, which holds another twice, and so on, is short to write and endless to print.

    Raises:
        TemplateError: a namespace is inside a list, where it could be part of a cycle.
    """
    total = 0.0
    waiting = [value]
    while waiting and total <= limit:
        one = waiting.pop()
        total += size(one)
        if isinstance(one, Mapping):
            waiting.extend(one.keys())
            waiting.extend(one.values())
        elif isinstance(one, list | tuple | Set):
            waiting.extend(one)
        elif isinstance(one, Namespace) and one is not value:
            raise TemplateError("The chat template prints or compares a list with a namespace in it.")
    return total


def text(value: Any) -> str:
    """A value as a template prints it, paid for.

    Raises:
        TemplateError: the budget is spent.
    """
    if isinstance(value, str):
        meter().charge(len(value) + 1)
        return value
    if isinstance(value, Namespace | Macro):
        return f"<{type(value).__name__}>"
    # The printed form has quotes, commas and escapes beside what is in the value.
    meter().charge(4 * weight(value, meter().left))
    return str(value)
