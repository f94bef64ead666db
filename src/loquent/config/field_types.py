"""Values against their declared types: checks, and the conversions that JSON makes necessary; no general validator."""

from __future__ import annotations

import math
import operator
import re
import sys
import types
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

_DIGITS = re.compile(r"-?\d{1,18}")


class MismatchError(Exception):
    """The value is not of the declared type; the caller knows the field's name and raises the error users see."""


def coerce(value: Any, hint: Any) -> Any:
    """`value` as the declared type `hint` wants it.

    Integers stand for floats, tuples for lists, digits for the integer keys of a mapping (JSON has no other keys);
    a bool is never a number. Numbers of other libraries that count as integers become `int`.

    Raises:
        MismatchError: the value is of another type, or a float that is not finite.
    """
    if hint is Any:
        return value
    if hint is None or hint is type(None):
        return _exactly(value, value is None)
    origin = get_origin(hint)
    if origin is Union or origin is types.UnionType:
        return _first_that_fits(value, get_args(hint))
    if origin is Literal:
        return _exactly(value, value in get_args(hint))
    if origin is not None:
        return _COLLECTIONS[origin](value, get_args(hint))
    return _SCALARS[hint](value) if hint in _SCALARS else _exactly(value, isinstance(value, hint))


def describe(hint: Any) -> str:
    """A declared type as a reader of the message knows it: "int | list[int] | None"."""
    if hint is None or hint is type(None):
        return "None"
    origin = get_origin(hint)
    if origin is Union or origin is types.UnionType:
        return " | ".join(map(describe, get_args(hint)))
    if origin is Literal:
        return " | ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and origin is None else str(hint).replace("typing.", "")


def _exactly(value: Any, fits: bool) -> Any:
    if not fits:
        raise MismatchError
    return value


def _first_that_fits(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return coerce(value, hint)
        except MismatchError:
            continue
    raise MismatchError


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise MismatchError
    try:
        return operator.index(value)
    except TypeError:
        raise MismatchError from None


def _number(value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, Integral):  # numpy's floats too
        return float(_exactly(value, math.isfinite(value)))
    # An integer stays one, so that a file that says 10000 is written as 10000 again.
    number = _integer(value)
    return _exactly(number, abs(number) <= sys.float_info.max)  # type: ignore[no-any-return]


def _list(value: Any, hints: tuple[Any, ...]) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise MismatchError
    return [coerce(item, hints[0]) for item in value]


def _tuple(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise MismatchError
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(coerce(item, hints[0]) for item in value)
    if len(hints) != len(value):
        raise MismatchError
    return tuple(coerce(item, hint) for item, hint in zip(value, hints))


def _dict(value: Any, hints: tuple[Any, ...]) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise MismatchError
    return {_key(key, hints[0]): coerce(item, hints[1]) for key, item in value.items()}


def _key(key: Any, hint: Any) -> Any:
    if hint is int and isinstance(key, str) and _DIGITS.fullmatch(key):
        return int(key)
    return coerce(key, hint)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    list: lambda value: _list(value, (Any,)),
    dict: lambda value: _dict(value, (Any, Any)),
}
_COLLECTIONS: dict[Any, Callable[[Any, tuple[Any, ...]], Any]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
}
