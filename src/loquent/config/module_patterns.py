"""How an adapter's config names modules: lists of endings, regular expressions, layers; it knows no model.

The meaning is PEFT's (https://huggingface.co/docs/peft/package_reference/lora).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from loquent.errors import ConfigError

V = TypeVar("V")

_NUMBERED = re.compile(r".*?\.[^.]*\.(\d+)\.")
_NAME = re.compile(r"\w+(\.\w+)*")

# What a pattern of a file may have beside names: "any text", twice at most, and numbers. Nothing of it takes long.
_ESCAPED_DOT, _ANYTHING, _NUMBER = re.compile(r"\\\."), re.compile(r"\.\*"), re.compile(r"(\\d|\[0-9\])\+?")
_PLAIN = re.compile(r"\^?[\w.\-]*\$?")
_MOST_ANYTHING, _LONGEST = 2, 1000


def is_name(name: str) -> bool:
    """Whether it is the name of a module, or the end of one: words with dots between them."""
    return bool(_NAME.fullmatch(name))


def ends_with(module: str, name: str) -> bool:
    """Whether a module's path is `name`, or ends with it behind a dot."""
    return module == name or module.endswith(f".{name}")


def matches(module: str, wanted: str | Collection[str]) -> bool:
    """Whether a regular expression matches a module's whole path, or one of some names is its end."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(ends_with(module, name) for name in wanted)


def lies_in(module: str, names: Collection[str]) -> bool:
    """Whether a module is one of those named, or inside of one."""
    return any(f".{name}." in f".{module}." for name in names)


def layer_of(module: str, lists: Collection[str] = ()) -> int | None:
    """Which layer a module lies in: the number behind the name of a list of modules, or behind the first with one."""
    if not lists:
        found = _NUMBERED.match(module)
        return int(found[1]) if found else None
    for name in lists:
        found = re.match(rf"(?:.*?\.)?{re.escape(name)}\.(\d+)\.", module)
        if found:
            return int(found[1])
    return None


def value_for(module: str, patterns: Mapping[str, V], otherwise: V) -> V:
    """The value of the first pattern that the module's path ends with."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def check_regular(field: str, pattern: str) -> None:
    """Refuse what is no regular expression.

    Raises:
        ConfigError: it says where it goes wrong.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"LoraConfig: {field}={pattern[:200]!r} is no regular expression: {error}.") from error


def check_of_file(field: str, pattern: str) -> None:
    """Refuse a pattern of a file somebody else wrote that could take a regular expression's exponential time.

    Raises:
        ConfigError: it is more than names, `.*` and numbers.
    """
    rest = _NUMBER.sub("0", _ESCAPED_DOT.sub(".", pattern))
    anything = len(_ANYTHING.findall(rest))
    if len(pattern) > _LONGEST or anything > _MOST_ANYTHING or not _PLAIN.fullmatch(_ANYTHING.sub("", rest)):
        raise ConfigError(
            f"adapter_config.json: {field} has the pattern {pattern[:200]!r}, which is more than names, numbers and "
            f"{_MOST_ANYTHING} times '.*'. No other regular expressions of files are run: list the modules by name."
        )
