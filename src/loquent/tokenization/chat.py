"""Chat templates of a tokenizer: which one applies, and from a conversation to ids; rendering is in `templates`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loquent.errors import ArgumentError, TemplateError
from loquent.tokenization.arguments import Padding, Truncation
from loquent.tokenization.batch import BatchEncoding
from loquent.tokenization.encoding import Encoder

if TYPE_CHECKING:
    from loquent.tokenization.templates import Rendered

Message = Mapping[str, Any]
Tool = Mapping[str, Any] | Callable[..., Any]


class Chat(Encoder):
    """The conversation half of a tokenizer.

    https://huggingface.co/docs/transformers/main_classes/tokenizer#transformers.PreTrainedTokenizerBase.apply_chat_template

    Arguments of `apply_chat_template`:
        conversation: messages `{"role": ..., "content": ...}`, or a list of conversations.
        tools, documents: passed to the template; functions become JSON schemas.
        chat_template: a template instead of the model's, or the name of one of the model's.
        add_generation_prompt: end with what begins an answer.
        continue_final_message: end inside the last message, for the model to go on with.
        tokenize: False returns the text.
        padding, truncation, max_length, return_tensors: as in `__call__`.
        return_dict: a BatchEncoding instead of the ids alone.
        return_assistant_tokens_mask: with `return_dict`, adds `assistant_masks`: 1 for tokens of the assistant, where
            the template marks them with `{% generation %}`.
        tokenizer_kwargs: further arguments of `__call__`.
        kwargs: further names for the template.
    """

    # One template, or several by name ("default", "tool_use", "rag", ...).
    chat_template: str | dict[str, str] | None

    @staticmethod
    def stored_template(stored: Any) -> str | dict[str, str] | None:
        """A template as files store it: a string, a dictionary, or a list of {"name", "template"}.

        Raises:
            TemplateError: it has another form.
        """
        if isinstance(stored, list | tuple) and all(isinstance(one, Mapping) for one in stored):
            stored = {one.get("name"): one.get("template") for one in stored}
        texts = [*stored, *stored.values()] if isinstance(stored, dict) else [stored]
        if stored is None or all(isinstance(one, str) for one in texts):
            return stored  # type: ignore[no-any-return]
        raise TemplateError("chat_template must be a string, or a list of objects with a name and a template.")

    def get_chat_template(self, chat_template: str | None = None, tools: Sequence[Tool] | None = None) -> str:
        """The template that applies: the one passed (its text, or the name of a stored one), or the model's.

        Raises:
            TemplateError: there is none, or several and none is called "default".
        """
        stored = self.chat_template
        if isinstance(stored, str):
            return stored if chat_template is None else chat_template
        named = stored or {}
        if chat_template is not None:
            return named.get(chat_template, chat_template)
        if tools is not None and "tool_use" in named:
            return named["tool_use"]
        if "default" in named:
            return named["default"]
        if named:
            raise TemplateError(
                f"The model has the chat templates {sorted(named)} and none called 'default'. Pass chat_template= one "
                "of these names."
            )
        raise TemplateError(
            f"The tokenizer {self.name_or_path!r} has no chat template, so it does not say how a conversation is "
            "written. If the model was trained on conversations, pass chat_template=, or set tokenizer.chat_template; "
            "for DialoGPT and its like that is loquent.tokenization.templates.TURNS_JOINED_BY_EOS."
        )

    name_or_path: str

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tools: Sequence[Tool] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: Padding = False,
        truncation: Truncation = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The ids of a conversation, or of a batch of conversations; arguments as the class describes them.

        Raises:
            ArgumentError: arguments exclude each other.
            TemplateError: no template applies, or it fails.
        """
        # Jinja takes time to import, and most programs have no use for it.
        from loquent.tokenization.templates import render

        _check_flags(return_dict, tokenize, return_assistant_tokens_mask, continue_final_message, add_generation_prompt)
        template = self.get_chat_template(chat_template, tools)
        conversations, is_batch = _conversations(conversation)
        rendered = [
            render(
                template,
                messages,
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                variables={**self.special_tokens_map, **kwargs},
            )
            for messages in conversations
        ]
        texts = [one.text for one in rendered]
        if not tokenize:
            return texts if is_batch else texts[0]
        encoded = self(
            texts if is_batch else texts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            **(tokenizer_kwargs or {}),
        )
        if return_assistant_tokens_mask:
            masks = [_mask(encoded, row, one) for row, one in enumerate(rendered)]
            encoded["assistant_masks"] = masks if is_batch else masks[0]
        encoded.convert_to_tensors(return_tensors, prepend_batch_axis=not is_batch)
        return encoded if return_dict else encoded["input_ids"]


def _check_flags(return_dict: bool, tokenize: bool, masks: bool, continues: bool, prompts: bool) -> None:
    if return_dict and not tokenize:
        raise ArgumentError("return_dict=True needs tokenize=True: text has no dictionary of ids.")
    if masks and not return_dict:
        raise ArgumentError("return_assistant_tokens_mask=True needs return_dict=True to be returned in.")
    if continues and prompts:
        raise ArgumentError(
            "continue_final_message=True and add_generation_prompt=True exclude each other: the first goes on with the "
            "last message, the second begins a new one."
        )
    if continues and masks:
        raise ArgumentError("continue_final_message=True and return_assistant_tokens_mask=True exclude each other.")


def _conversations(conversation: Any) -> tuple[list[Sequence[Message]], bool]:
    """One or several conversations as a list, and whether there were several."""
    if not isinstance(conversation, list | tuple) or not conversation:
        raise ArgumentError(
            f"conversation={conversation!r} must be a list of messages such as {{'role': 'user', 'content': 'Hello'}}."
        )
    first = conversation[0]
    if isinstance(first, list | tuple) or hasattr(first, "messages"):
        # Some programs have a class with the messages in it.
        return [one.messages if hasattr(one, "messages") else one for one in conversation], True
    if isinstance(first, str):
        raise ArgumentError(
            f"conversation holds the string {first!r} where a message was expected: {{'role': ..., 'content': ...}}."
        )
    return [conversation], False


def _mask(encoded: BatchEncoding, row: int, rendered: Rendered) -> list[int]:
    """1 for each token of a row that covers what the assistant wrote."""
    encodings = encoded.encodings or []
    length = len(encodings[row].ids)
    mask = [0] * length
    for start, end in rendered.generated:
        if start == end:
            continue
        first = encoded.char_to_token(row, start)
        last = encoded.char_to_token(row, end - 1)
        if first is None:
            break  # cut off by truncation
        stop = length if last is None else last + 1
        mask[first:stop] = [1] * (stop - first)
    return mask
