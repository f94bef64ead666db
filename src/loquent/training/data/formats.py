"""How a conversation is written for training, and which characters of it the loss counts; nothing is tokenized here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loquent.errors import ArgumentError, DataError, TemplateError
from loquent.training.data.dialogues import Dialogue

Messages = Sequence[Mapping[str, Any]]
Spans = tuple[tuple[int, int], ...]
_GENERATION_BLOCK = re.compile(r"\{%[-+]?\s*generation\b")


@dataclass(frozen=True)
class Written:
    """The text of a conversation, and the spans of characters (start, end) that the loss counts."""

    text: str
    counted: Spans


class DialogueFormat(Protocol):
    """What writes conversations."""

    def write(self, dialogue: Dialogue) -> Written:
        """The text, with what the loss counts.

        Raises:
            DataError: this conversation cannot be written so; names its place.
            TemplateError: the chat template fails on it; names its place.
        """


@dataclass(frozen=True)
class JoinedByEos:
    """Turns one after another, each ended by EOS, and the loss on all of it (DialoGPT, arXiv:1911.00536, section 3.1).

    The roles of the messages do not matter.
    """

    eos: str

    @classmethod
    def of(cls, tokenizer: Any) -> JoinedByEos:
        """With the tokenizer's EOS token.

        Raises:
            ArgumentError: it has none.
        """
        if tokenizer.eos_token is None:
            raise ArgumentError("The tokenizer has no EOS token to join turns by. Set tokenizer.eos_token.")
        return cls(tokenizer.eos_token)

    def write(self, dialogue: Dialogue) -> Written:
        """The turns with an EOS behind each."""
        turns = [message["content"] for message in dialogue.messages]
        if None in turns:
            raise DataError(f"{dialogue.place} has a message without text, which only a chat template can write.")
        text = "".join(turn + self.eos for turn in turns)
        return Written(text, ((0, len(text)),))


@dataclass(frozen=True)
class Templated:
    """A chat template, and the loss on the assistant's answers: on what the model must write, its end token included.

    An answer begins behind what the template puts before it where an answer is asked for, and ends where the template
    has written it; space behind a special token that ends it does not count, as nothing is generated behind that token.
    Where the template marks answers with `{% generation %}`, the marks hold instead, and a conversation is rendered
    once, not twice for each answer. What follows the last answer is left out.

    template: the Jinja source.
    variables: what else the template is given, such as `eos_token`.
    ends: the special tokens that may end an answer.
    answers_only: False puts the loss on everything.
    """

    template: str
    variables: Mapping[str, Any]
    ends: tuple[str, ...] = ()
    answers_only: bool = True

    @classmethod
    def of(cls, tokenizer: Any, *, answers_only: bool = True) -> Templated:
        """With the tokenizer's own template and special tokens.

        Raises:
            TemplateError: it has no template.
        """
        added = tokenizer.added_tokens_decoder.values()
        ends = tuple(sorted(str(token) for token in added if token.special))
        return cls(tokenizer.get_chat_template(), tokenizer.special_tokens_map, ends, answers_only)

    def write(self, dialogue: Dialogue) -> Written:
        """The conversation as the template has it."""
        try:
            if not self.answers_only:
                text, _ = self._rendered(dialogue.messages)
                return Written(text, ((0, len(text)),))
            return self._answers(_until_the_last_answer(dialogue), dialogue.place)
        except TemplateError as error:
            raise TemplateError(f"{dialogue.place}: {error}") from error

    def _answers(self, messages: Messages, place: str) -> Written:
        text, marked = self._rendered(messages)
        if _GENERATION_BLOCK.search(self.template):
            return Written(text, marked)
        return Written(text, tuple(self._answer(text, messages, at) for at in _answers_in(messages)))

    def _answer(self, text: str, messages: Messages, at: int) -> tuple[int, int]:
        """Where the answer is that is message number `at`."""
        before, _ = self._rendered(messages[:at], add_generation_prompt=True)
        behind = text if at == len(messages) - 1 else self._rendered(messages[: at + 1])[0]
        if not (text.startswith(behind) and behind.startswith(before)):
            raise TemplateError(
                f"The chat template writes message {at + 1} in another way when the conversation ends there than when "
                "it goes on, so where an answer begins and ends cannot be told. Mark the answers in the template with "
                "{% generation %} and {% endgeneration %}, or use the format eos (--dialogue-format eos)."
            )
        answer = text[len(before) : len(behind)].rstrip()
        return len(before), len(before) + len(answer) if answer.endswith(self.ends) else len(behind)

    def _rendered(self, messages: Messages, add_generation_prompt: bool = False) -> tuple[str, Spans]:
        # Jinja takes time to import, and texts have no use for it.
        from loquent.tokenization.templates import render

        written = render(self.template, messages, add_generation_prompt=add_generation_prompt, variables=self.variables)
        return written.text, written.generated


def _answers_in(messages: Messages) -> list[int]:
    return [at for at, message in enumerate(messages) if message["role"] == "assistant"]


def _until_the_last_answer(dialogue: Dialogue) -> Messages:
    answers = _answers_in(dialogue.messages)
    if not answers:
        roles = sorted({message["role"] for message in dialogue.messages})
        raise DataError(
            f"{dialogue.place} has no message of the assistant, only of {roles}, so the loss would count nothing. "
            "Leave it out, or count all tokens (answers_only=False)."
        )
    return dialogue.messages[: answers[-1] + 1]
