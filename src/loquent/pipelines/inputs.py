"""What a text-generation pipeline is called with: texts, chats, lists or streams of either; nothing is generated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from loquent.errors import ArgumentError

T = TypeVar("T")

Chat = Sequence[Mapping[str, Any]]
Prompt = str | Chat


def is_single(inputs: Any) -> bool:
    """Whether the inputs are one prompt: a text, or a conversation."""
    return isinstance(inputs, str) or (is_listed(inputs) and bool(inputs) and isinstance(inputs[0], Mapping))


def is_listed(inputs: Any) -> bool:
    """Whether the inputs are all there, in a list or a tuple, rather than still to come."""
    return isinstance(inputs, list | tuple)


def checked_prompt(prompt: Any) -> Prompt:
    """One prompt, if it is one.

    Raises:
        ArgumentError: it is neither a text nor a list of messages with a role and a content.
    """
    if isinstance(prompt, str):
        return prompt
    if is_listed(prompt) and prompt and all(isinstance(message, Mapping) for message in prompt):
        incomplete = next((message for message in prompt if not {"role", "content"} <= set(message)), None)
        if incomplete is None:
            chat: Chat = list(prompt)
            return chat
        raise ArgumentError(f"a message of the chat is {dict(incomplete)!r}. Each needs a 'role' and a 'content'.")
    raise ArgumentError(
        f"text_inputs has a {type(prompt).__name__}, {prompt!r}, where a prompt was expected. "
        "Pass texts, or chats: lists of messages such as {'role': 'user', 'content': 'Hello'}."
    )


def items_of(inputs: Any) -> Iterator[Any]:
    """The items of a generator, an iterable, or a data set that is only indexed.

    Raises:
        ArgumentError: the inputs have no items.
    """
    if isinstance(inputs, Iterable) and not isinstance(inputs, Mapping):
        return iter(inputs)
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__") and not isinstance(inputs, Mapping):
        return (inputs[index] for index in range(len(inputs)))
    raise ArgumentError(f"text_inputs is a {type(inputs).__name__}. Pass a text, a chat, or several of either.")


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter; no more is taken from `items` than the next list needs."""
    iterator = iter(items)
    for first in iterator:
        yield list(chain([first], islice(iterator, size - 1)))
