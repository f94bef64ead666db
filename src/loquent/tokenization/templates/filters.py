"""The filters and tests that a template may use, each charged before it runs; what is not here does not exist for it.

Jinja's own: https://jinja.palletsprojects.com/en/stable/templates/#list-of-builtin-filters
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from itertools import groupby
from typing import Any

import jinja2
from jinja2.filters import FILTERS
from jinja2.tests import TESTS
from jinja2.utils import pass_environment

from loquent.errors import TemplateError
from loquent.tokenization.templates.meter import ENTRY, meter, size, text, weight
from loquent.tokenization.templates.operations import STRING_METHODS, add, counted, fits, joined, printf, replaced


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter escapes it for HTML."""
    size = weight(value, meter().left)
    # Each entry stands on its own line, indented once for each level that it is in.
    step = len(indent) if isinstance(indent, str) else fits(indent or 0)
    space = sum(map(len, separators or ()))
    meter().charge(8 * size + size / ENTRY * (space + step * (_depth(value) if step else 0)))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inside = [one for one in level if isinstance(one, Mapping | list | tuple)]
        level = [child for one in inside for child in (one.values() if isinstance(one, Mapping) else one)]
    return depth


def indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Every line moved to the right"""
    content = text(value)
    step = len(width) if isinstance(width, str) else fits(width)
    meter().charge((content.count("\n") + 2) * step + 8 * len(content))
    result: str = FILTERS["indent"](content, width, first, blank)
    return result


def batch(value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    """Rows of `linecount` members"""
    members, size = counted(value), max(1, fits(linecount))
    rows = [members[start : start + size] for start in range(0, len(members), size)]
    if rows and fill_with is not None:
        missing = size - len(rows[-1])
        meter().charge(missing * weight(fill_with, meter().left))
        rows[-1] += [fill_with] * missing
    return meter().made(rows)


def sliced(value: Any, slices: int, fill_with: Any = None) -> list[list[Any]]:
    """`slices` columns"""
    members = counted(value)
    meter().charge(ENTRY * fits(slices) + weight(fill_with, meter().left) * abs(slices))
    return meter().made(list(FILTERS["slice"](members, slices, fill_with)))


def rounded(value: Any, precision: int = 0, method: str = "common") -> float:
    """`round`, `ceil` or `floor` to a number of decimals"""
    if not -300 < int(precision) < 300:
        raise TemplateError(f"The chat template rounds to {precision} decimals.")
    result: float = FILTERS["round"](value, precision, method)
    return result


def number(kind: str) -> Callable[..., Any]:
    """`int` and `float`, of text that is not absurdly long"""

    def convert(value: Any, *args: Any) -> Any:
        if isinstance(value, str):
            fits(len(value))
        return FILTERS[kind](value, *args)

    return convert


def summed(environment: jinja2.Environment, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    """The sum of members, or of an attribute of each"""
    total = start
    for one in counted(iterable):
        total = add(total, one if attribute is None else _attribute(environment, one, attribute))
    return total


def grouped(environment: jinja2.Environment, value: Any, attribute: Any, default: Any = None) -> list[Any]:
    """Members by an attribute: pairs (grouper, list)"""

    def key(one: Any) -> Any:
        found = _attribute(environment, one, attribute)
        return default if isinstance(found, jinja2.Undefined) and default is not None else found

    members = counted(value)
    meter().charge(4 * weight(members, meter().left))
    return meter().made([(name, list(group)) for name, group in groupby(sorted(members, key=key), key=key)])


def _attribute(environment: jinja2.Environment, one: Any, path: Any) -> Any:
    for part in str(path).split("."):
        one = environment.getitem(one, int(part) if part.isdigit() else part)
    return one


def _shallow(name: str) -> Callable[..., Any]:
    """A filter of Jinja's that passes members on without reading what is in them."""
    original = FILTERS[name]

    def run(*args: Any, **kwargs: Any) -> Any:
        meter().charge(ENTRY + sum(size(one) for one in args if _is_data(one)))
        result = original(*args, **kwargs)
        return meter().made(counted(result) if name in _LAZY and not isinstance(result, str) else result)

    return _passing_like(original, run)


def _deep(name: str) -> Callable[..., Any]:
    """A filter of Jinja's that compares or hashes members."""
    original = FILTERS[name]

    def run(*args: Any, **kwargs: Any) -> Any:
        data = [one for one in args if _is_data(one)]
        for _ in range(4):
            meter().reads(*data)
        result = original(*args, **kwargs)
        return meter().made(counted(result) if name in _LAZY and not isinstance(result, str) else result)

    return _passing_like(original, run)


def _textual(name: str) -> Callable[..., Any]:
    """A filter of Jinja's that works on the text of its value."""
    original = FILTERS[name]

    def run(value: Any, *args: Any, **kwargs: Any) -> Any:
        content = text(value)
        meter().charge(8 * len(content))
        return meter().made(original(content, *args, **kwargs))

    return run


@pass_environment
def truncated(environment: jinja2.Environment, value: Any, length: int = 255, *args: Any, **kwargs: Any) -> str:
    """The text up to a length"""
    content = text(value)
    meter().reads(*args, *kwargs.values())
    result: str = FILTERS["truncate"](environment, content, length, *args, **kwargs)
    return result


def _passing_like(original: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` called as `original` is: with the context or the environment first, where it asks for one."""
    if hasattr(original, "jinja_pass_arg"):
        run.jinja_pass_arg = original.jinja_pass_arg  # type: ignore[attr-defined]
    return run


def _is_data(value: Any) -> bool:
    return not isinstance(value, jinja2.Environment | jinja2.runtime.Context | jinja2.nodes.EvalContext)


@pass_environment
def _join(environment: jinja2.Environment, value: Any, d: Any = "", attribute: Any = None) -> str:
    members = counted(value)
    if attribute is not None:
        members = [_attribute(environment, one, attribute) for one in members]
    return joined(text(d), members)


# Jinja's own return iterators; consumed at once, where members are counted, and not where they are not.
_LAZY = frozenset({"items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "unique"})
_SHALLOW = """abs attr count d default first items last length list map reject rejectattr reverse select
selectattr"""

FILTER_TABLE: dict[str, Callable[..., Any]] = {
    **{name: _shallow(name) for name in _SHALLOW.split()},
    **{name: _deep(name) for name in ("dictsort", "max", "min", "sort", "unique", "urlencode")},
    **{name: _textual(name) for name in ("capitalize", "lower", "title", "trim", "upper", "wordcount")},
    "batch": batch,
    "center": lambda value, width=80: STRING_METHODS["center"](text(value), width),
    "e": lambda value: escape(text(value)),
    "escape": lambda value: escape(text(value)),
    "float": number("float"),
    "format": lambda value, *args, **kwargs: printf(text(value), kwargs or args),
    "groupby": pass_environment(grouped),
    "indent": indent,
    "int": number("int"),
    "join": _join,
    "replace": lambda value, old, new, count=-1: replaced(text(value), text(old), text(new), count),
    "round": rounded,
    "safe": text,
    "slice": sliced,
    "string": text,
    "sum": pass_environment(summed),
    "tojson": tojson,
    "truncate": truncated,
}


_PLAIN_TESTS = """boolean callable defined divisibleby eq equalto even false filter float ge gt greaterthan in integer
iterable le lessthan lower lt mapping ne none number odd sameas sequence string test true undefined upper == != > >= <
<="""


def _metered_test(name: str) -> Callable[..., Any]:
    original: Any = TESTS[name]

    def run(*args: Any) -> Any:
        meter().charge(1)
        meter().reads(*(one for one in args if _is_data(one)))
        return original(*args)

    return _passing_like(original, run)


TEST_TABLE = {name: _metered_test(name) for name in _PLAIN_TESTS.split()}
