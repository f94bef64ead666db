"""The JSON schema of a Python function, so that a function can be passed as a tool; it never calls the function.

Form: https://huggingface.co/docs/transformers/chat_extras#schema, docstrings in Google's style.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from loquent.errors import ArgumentError

_SIMPLE: Mapping[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
}
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_CHOICES = re.compile(r"\(choices:\s*(\[.*?\])\s*\)\s*$", re.IGNORECASE | re.DOTALL)


def json_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of a function as a tool: its name, what it does, and each argument's type and meaning.

    Raises:
        ArgumentError: a type hint or a description is missing, or a type has no JSON form.
    """
    name = getattr(function, "__name__", repr(function))
    documentation = inspect.getdoc(function)
    if not documentation:
        raise ArgumentError(f"tools: {name} has no docstring, which would tell the model what it does.")
    summary, sections = _sections(documentation)
    described = _entries(sections.get("Args", ""))
    hints = get_type_hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for argument in inspect.signature(function).parameters.values():
        if argument.name not in hints:
            raise ArgumentError(f"tools: argument {argument.name} of {name} has no type hint.")
        if argument.name not in described:
            raise ArgumentError(f"tools: the docstring of {name} does not describe its argument {argument.name}.")
        properties[argument.name] = _described(_type(hints[argument.name], name), described[argument.name])
        if argument.default is argument.empty:
            required.append(argument.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    schema: dict[str, Any] = {"name": name, "description": summary, "parameters": parameters}
    if "return" in hints:
        schema["return"] = _type(hints["return"], name)
        if "Returns" in sections:
            schema["return"]["description"] = sections["Returns"].strip()
    return {"type": "function", "function": schema}


def _sections(documentation: str) -> tuple[str, dict[str, str]]:
    """What comes before the first section, and the sections by name."""
    summary, *rest = _SECTION.split(documentation)
    names = ["Args" if name in ("Arguments", "Parameters") else name for name in rest[0::2]]
    return summary.strip(), dict(zip(names, (inspect.cleandoc(body) for body in rest[1::2])))


def _entries(section: str) -> dict[str, str]:
    """`name: description` for each argument; further lines are indented and belong to the one before."""
    found: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        entry = None if line.startswith((" ", "\t")) else _ENTRY.match(line)
        if entry:
            current = entry.group(1)
            found[current] = entry.group(2).strip()
        elif current and line.strip():
            found[current] = f"{found[current]} {line.strip()}".strip()
    return found


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    choices = _CHOICES.search(description)
    if choices:
        try:
            listed = json.loads(choices.group(1))
        except ValueError as error:
            raise ArgumentError(f"tools: {choices.group(0)!r} must list its choices as JSON: {error}.") from error
        schema["enum"] = [one.strip() if isinstance(one, str) else one for one in listed]
        description = description[: choices.start()].strip()
    return {**schema, "description": description}


def _type(hint: Any, function: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    if hint in _SIMPLE:
        return dict(_SIMPLE[hint])
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([one for one in inside if one is not type(None)], type(None) in inside, function)
    if origin is Literal:
        kinds = {type(one) for one in inside}
        kind = _SIMPLE[kinds.pop()] if len(kinds) == 1 else {}
        return {**kind, "enum": list(inside)}
    if origin is list:
        return {"type": "array", "items": _type(inside[0], function)}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_type(one, function) for one in inside]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(inside[1], function)}
    raise ArgumentError(
        f"tools: the type {hint} in {function} has no JSON form; use str, int, float, bool, list, dict."
    )


def _union(members: list[Any], nullable: bool, function: str) -> dict[str, Any]:
    schemas = [_type(one, function) for one in members]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(list(one) == ["type"] for one in schemas):
        schema = {"type": sorted(one["type"] for one in schemas)}
    else:
        schema = {"anyOf": schemas}
    return {**schema, "nullable": True} if nullable else schema
