"""The operators, methods and functions that a template may use, each charged before it runs; filters are elsewhere.

What is not listed here does not exist for a template. Language: https://jinja.palletsprojects.com/en/stable/templates/
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedFormatter

from loquent.errors import TemplateError
from loquent.tokenization.templates.meter import ENTRY, meter, size, text, weight

# Numbers beyond this are no chat's; multiplying them takes time that nobody pays for.
_MAX_BITS = 4096
# A width or a precision inside a format.
_MAX_WIDTH = 10_000
_NUMBER = re.compile(r"\d+")
# A conversion begins at its "%", or after the name in "%(name)s"; names may hold parentheses, so any ")" may end one.
_PRINTF = re.compile(r"[%)][-+ #0-9.*]*")


def fits(width: Any) -> int:
    number = int(width)
    if abs(number) > _MAX_WIDTH:
        raise TemplateError(f"The chat template asks for a width of {number}; {_MAX_WIDTH} is the most.")
    return number


# Operators


def add(left: Any, right: Any) -> Any:
    """`+`"""
    _pay_for_both(left, right)
    return left + right


def subtract(left: Any, right: Any) -> Any:
    """`-`, also the difference of sets"""
    _pay_for_both(left, right)
    return left - right


def multiply(left: Any, right: Any) -> Any:
    """`*`, also a string or a list that many times"""
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
            meter().charge(size(many) * max(1, times))
            return many * times
    _pay_for_both(left, right)
    return left * right


def power(left: Any, right: Any) -> Any:
    """`**`"""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise TemplateError("The chat template computes a number of thousands of digits.")
    return left**right


def modulo(left: Any, right: Any) -> Any:
    """`%`, also printf's formatting"""
    if isinstance(left, str):
        return printf(left, right)
    _pay_for_both(left, right)
    return left % right


def _pay_for_both(left: Any, right: Any) -> None:
    for side in (left, right):
        if isinstance(side, int) and side.bit_length() > _MAX_BITS:
            raise TemplateError("The chat template computes a number of thousands of digits.")
    meter().charge(size(left) + size(right))


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": power,
    "%": modulo,
}


# Methods


def printf(template: str, arguments: Any) -> str:
    """`"%s: %d" % (name, number)`"""
    meter().charge(len(template) + 1)
    for field in _PRINTF.findall(template):
        if "*" in field:
            raise TemplateError("The chat template uses a width of * in a format.")
        for number in _NUMBER.findall(field):
            fits(number)
            meter().charge(int(number))
    values = list(arguments.values()) if isinstance(arguments, Mapping) else arguments
    times = template.count("%") if isinstance(arguments, Mapping) else 1
    meter().charge(4 * times * weight(values, meter().left))
    result: str = template % arguments
    return result


def replaced(value: str, old: str, new: str, count: int = -1) -> str:
    """`value.replace(old, new)`"""
    found = value.count(old) if old else len(value) + 1
    found = found if count < 0 else min(count, found)
    meter().charge(2 * len(value) + found * len(new))
    return value.replace(old, new, count)


def joined(separator: str, parts: Iterable[Any]) -> str:
    """`separator.join(parts)`"""
    texts = [one if isinstance(one, str) else text(one) for one in counted(parts)]
    meter().charge(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _padded(name: str) -> Callable[..., str]:
    def method(value: str, width: int, *fill: str) -> str:
        meter().charge(len(value) + fits(width))
        result: str = getattr(value, name)(width, *fill)
        return result

    return method


def _linear(name: str) -> Callable[..., Any]:
    """A method that takes time, and makes text or pieces, in proportion to the text."""

    def method(value: str, *args: Any, **kwargs: Any) -> Any:
        meter().charge(4 * len(value))
        meter().reads(*args)
        return meter().made(getattr(value, name)(*args, **kwargs))

    return method


_LINEAR = """capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier
islower isnumeric isprintable isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind rindex
rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"""

STRING_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _linear(name) for name in _LINEAR.split()},
    **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
    "replace": replaced,
    "join": joined,
}


class _Formatter(SandboxedFormatter):
    """`str.format` with its widths and results paid for."""

    def format_field(self, value: Any, format_spec: str) -> str:
        for number in _NUMBER.findall(format_spec):
            meter().charge(fits(number))
        meter().charge(4 * weight(value, meter().left))
        result: str = super().format_field(value, format_spec)
        return meter().made(result)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        meter().charge(4 * weight(value, meter().left))
        return super().convert_field(value, conversion)


def format_method(environment: jinja2.Environment, template: str, from_mapping: bool) -> Callable[..., str]:
    """`template.format` or `template.format_map`"""

    def method(*args: Any, **kwargs: Any) -> str:
        meter().charge(8 * len(template))
        if from_mapping:
            return _Formatter(environment).vformat(template, (), *args)
        return _Formatter(environment).vformat(template, args, kwargs)

    return method


# Methods of other values, whose results share what is in them.
OTHER_METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
}


def counted(values: Any) -> list[Any]:
    """The members of anything that can be iterated, each paid for."""
    members = []
    for one in values:
        meter().charge(ENTRY)
        members.append(one)
    return members


# Global functions


def raise_exception(message: Any) -> None:
    """Lets a template refuse a conversation: `{{ raise_exception("Roles must alternate") }}`."""
    raise jinja2.TemplateError(text(message))


def strftime_now(format: str) -> str:
    """The time of this moment."""
    fits(len(format))
    if re.search(r"%[^a-zA-Z%]*\d", format):
        raise TemplateError("The chat template uses a width in a date format.")
    return datetime.now().strftime(format)


def bounded_range(*args: int) -> range:
    """`range` of at most 100,000 numbers, as Jinja's sandbox has it."""
    numbers = range(*args)
    if len(numbers) > 100_000:
        raise TemplateError(f"The chat template counts through {len(numbers)} numbers; 100,000 is the most.")
    return numbers


def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`"""
    if isinstance(value, str | list | tuple):
        meter().charge(1)
        return meter().made(value[start:stop:step])
    if isinstance(value, range):
        return value[start:stop:step]
    return meter().made(list(islice(counted(value), start, stop, step)))
