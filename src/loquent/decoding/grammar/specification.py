"""From the fields of a generation config to one grammar in llguidance's Lark syntax; it compiles nothing.

Syntax: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
JSON schemas: https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
`response_format`: https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loquent.errors import ArgumentError

MAX_CHARACTERS = 1 << 17
"""The longest grammar that is compiled; one of 5,000 properties of an object takes two seconds."""

# Every token whose text the grammar allows may come, not only the one that the tokenizer would choose for it.
_ALL_TOKENIZATIONS = '\n%llguidance {"no_forcing": true}\n'
# Where JSON allows white space: a small model that may write more of it writes nothing else. A schema says what else
# it wants by "x-guidance": {"whitespace_pattern": ...}.
_SPACE = "[ ]?"
# What would end a regular expression that stands between slashes; what is escaped already stays as it is.
_SLASHES = re.compile(r"(?s)\\.|/|\n")
_ESCAPED = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
_KINDS = ("text", "json_object", "json_schema")


@dataclass(frozen=True)
class Specification:
    """A grammar's text, and what to call it in messages: the argument that it came by."""

    argument: str
    lark: str


def specification(config: Any) -> Specification | None:
    """The grammar that a generation config asks for; None where it asks for none.

    Raises:
        ArgumentError: it asks for several, or for one that is malformed, too long or too deep.
    """
    given = {name: value for name in FIELDS if (value := getattr(config, name)) is not None}
    if given.get("response_format") == {"type": "text"}:
        del given["response_format"]
    if not given:
        return None
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} are different grammars for one output. Pass one of them.")
    [(name, value)] = given.items()
    argument = f"{name}={value!r:.60}"
    lark = FIELDS[name](value, argument)
    if len(lark) > MAX_CHARACTERS:
        raise ArgumentError(f"{argument} has {len(lark):,} characters as a grammar. At most {MAX_CHARACTERS:,} work.")
    return Specification(argument, lark + _ALL_TOKENIZATIONS)


def _of_response_format(value: Mapping[str, Any], argument: str) -> str:
    schema: Any = value
    if value.get("type") == "json_object":
        schema = {"type": "object"}
    elif value.get("type") == "json_schema":
        schema = value.get("json_schema")
        if not isinstance(schema, Mapping) or not isinstance(schema.get("schema"), Mapping):
            raise ArgumentError(
                f'{argument} has no schema. Pass {{"type": "json_schema", "json_schema": {{"schema": {{...}}}}}}, '
                "or the schema itself."
            )
        schema = schema["schema"]
    elif value.get("type") == "text":
        raise ArgumentError(f'{argument} has more than its type. Pass {{"type": "text"}}, or one of {_KINDS[1:]}.')
    try:
        text = json.dumps({"x-guidance": {"whitespace_pattern": _SPACE}, **schema}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{argument} cannot be written as JSON: {error}. Pass a JSON schema.") from error
    return f"start: %json {text}"


def _of_regex(value: str, argument: str) -> str:
    _check_not_empty(value, argument)
    return f"start: /{_SLASHES.sub(lambda found: _ESCAPED.get(found[0], found[0]), value)}/"


def _of_grammar(value: str, argument: str) -> str:
    _check_not_empty(value, argument)
    return value


def _of_choice(value: list[str], argument: str) -> str:
    if not value:
        raise ArgumentError(f"{argument} has nothing to choose from. Pass texts.")
    for text in value:
        _check_not_empty(text, argument)
    return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(value))


def _check_not_empty(value: str, argument: str) -> None:
    if not value:
        raise ArgumentError(f"{argument} has an empty text, which no output can follow. Pass one that is not empty.")


FIELDS: dict[str, Callable[[Any, str], str]] = {
    "response_format": _of_response_format,
    "regex": _of_regex,
    "grammar": _of_grammar,
    "choice": _of_choice,
}
"""The fields of a generation config that ask for a grammar, of which one may be set, and what makes it of each."""
