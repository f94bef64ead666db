"""Renders a chat template for one conversation, within its caps; it knows no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from loquent.errors import ArgumentError, LoquentError, TemplateError
from loquent.tokenization.templates.meter import CAPS, Caps, metered
from loquent.tokenization.templates.sandbox import compiled
from loquent.tokenization.templates.schema import json_schema


@dataclass(frozen=True)
class Rendered:
    """The text of a conversation, and the places of what the assistant wrote: (start, end) in characters."""

    text: str
    generated: tuple[tuple[int, int], ...] = ()


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    variables: Mapping[str, Any] | None = None,
    caps: Caps = CAPS,
) -> Rendered:
    """The conversation as text.

    https://huggingface.co/docs/transformers/chat_templating tells what a template is given.

    Args:
        template: the Jinja source.
        messages: `{"role": ..., "content": ...}`.
        tools: JSON schemas, or Python functions with type hints and a docstring that a schema is made from.
        documents: `{"title": ..., "text": ...}`.
        add_generation_prompt: end with what begins an answer.
        continue_final_message: end inside the last message, so that the model goes on with it.
        variables: further names for the template, such as `eos_token`.
        caps: what the rendering may use.

    Raises:
        ArgumentError: tools or documents have the wrong form.
        TemplateError: the template is not valid, refuses the conversation, fails, or exceeds its caps.
    """
    given = {
        **(variables or {}),
        "messages": messages,
        "tools": None if tools is None else [_tool(tool) for tool in tools],
        "documents": _checked_documents(documents),
        "add_generation_prompt": add_generation_prompt,
    }
    program = compiled(template)
    chunks: list[str] = []
    with metered(caps, given) as running:
        try:
            for chunk in program.generate(**given):
                running.write(len(chunk))
                chunks.append(chunk)
        except LoquentError:
            raise
        except jinja2.TemplateError as error:
            raise TemplateError(f"{error.message}") from error
        except (RecursionError, MemoryError) as error:
            raise TemplateError("The chat template was stopped: it calls itself too deep.") from error
        except Exception as error:
            raise TemplateError(f"The chat template failed: {type(error).__name__}: {error}") from error
    text = "".join(chunks)
    if continue_final_message:
        text = _until_final_message(text, messages)
    return Rendered(text, tuple(running.marked))


def _tool(tool: Mapping[str, Any] | Callable[..., Any]) -> Mapping[str, Any]:
    if isinstance(tool, Mapping):
        return tool
    if callable(tool):
        return json_schema(tool)
    raise ArgumentError(f"tools: {tool!r} must be a JSON schema or a function with type hints and a docstring.")


def _checked_documents(documents: Sequence[Mapping[str, Any]] | None) -> Sequence[Mapping[str, Any]] | None:
    wrong = next((one for one in documents or () if not isinstance(one, Mapping)), None)
    if wrong is not None:
        raise ArgumentError(f"documents: {wrong!r} must be a dictionary such as {{'title': ..., 'text': ...}}.")
    return documents


def _until_final_message(text: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text up to the end of the last message, without what the template puts after it."""
    final = messages[-1].get("content") if messages else None
    if isinstance(final, list | tuple):
        final = next((block["text"] for block in reversed(final) if "text" in block), None)
    if not isinstance(final, str):
        raise TemplateError("continue_final_message=True: the last message has no text to continue.")
    start = text.rfind(final.strip())
    if start < 0:
        raise TemplateError(
            "continue_final_message=True: the last message is not in the rendered text as it was given, so the chat "
            "template changes it; pass the conversation without it and with add_generation_prompt=True."
        )
    # The template may have kept the space around the message, or stripped it.
    kept = final if text.startswith(final.lstrip(), start) and final == final.lstrip() else final.strip()
    return text[: start + len(kept)]
