"""`TextModel`: a model and its tokenizer behind verbs on text (generate, stream, chat, score); it computes nothing.

Everything is a thin layer over the engine that `model.generate()` uses, with the same options and the same results.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, overload

from loquent.decoding.grammar import specification
from loquent.errors import ArgumentError
from loquent.generation import Bound, engine_of, start
from loquent.text.continuation import Continuation
from loquent.text.run import TextEvent, TextRun
from loquent.text.score import Score, score
from loquent.tokenization import PreTrainedTokenizer

Message = Mapping[str, Any]
Conversation = str | Sequence[Message]

DEFAULT_NEW_TOKENS = 256


class TextModel:
    """A model that takes and gives text.

    The options of its methods are those of `model.generate`: the fields of GenerationConfig, `seed`, `assistant_model`,
    `negative_prompt_ids` and so on; the tokenizer is its own. What neither they nor the model's own generation config
    set has its default, but for the length: 256 new tokens, or as many as the model has positions left.
    """

    def __init__(self, model: Bound, tokenizer: PreTrainedTokenizer, obstacle: str | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.obstacle = obstacle  # why the native core does not run it, where it was meant to

    @property
    def max_positions(self) -> int | None:
        """How many tokens a prompt and what follows it may have together; None: any number."""
        return engine_of(self.model).backend.max_positions

    def describe(self) -> str:
        """What runs the model, such as "native (avx512, int8, 2 threads)" or "torch (float32 on cpu; ...)"."""
        return engine_of(self.model).backend.describe()

    @overload
    def generate(self, prompt: str, *, return_full_text: bool = False, **options: Any) -> str | list[str]: ...
    @overload
    def generate(
        self, prompt: Sequence[str], *, return_full_text: bool = False, **options: Any
    ) -> list[str] | list[list[str]]: ...
    def generate(self, prompt: str | Sequence[str], *, return_full_text: bool = False, **options: Any) -> Any:
        """Continue a text, or each of several.

        Args:
            prompt: a text or a list of texts.
            return_full_text: give the prompts back in front of what was written.
            options: fields of GenerationConfig, `seed`, and what else `model.generate` takes.

        Returns:
            The new text; a list of texts where `num_return_sequences` asks for several; a list of either for a list
            of prompts.

        Raises:
            ArgumentError: an option is unknown or cannot work.
            ContextLengthError: the prompt and the new tokens exceed the model's positions.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            return []
        pieces: dict[int, list[str]] = {}
        for event in self.events(prompts, **options):
            pieces.setdefault(event.row, []).append(event.text)
        copies = len(pieces) // len(prompts)
        texts = ["".join(pieces[row]) for row in sorted(pieces)]
        if return_full_text:
            texts = [prompts[row // copies] + text for row, text in enumerate(texts)]
        grouped = [texts[start : start + copies] for start in range(0, len(texts), copies)]
        results = [group[0] if copies == 1 else group for group in grouped]
        return results[0] if isinstance(prompt, str) else results

    def stream(self, prompt: str, **options: Any) -> Generator[str, None, None]:
        """The text that continues `prompt`, in pieces, as it is written; closing the generator stops the model.

        Arguments and errors as in `generate`, with one prompt and one text; `events` streams several.
        """
        if not isinstance(prompt, str):
            raise ArgumentError(f"prompt is a {type(prompt).__name__}; stream() takes one text. For several: events().")
        return self._pieces(self.events([prompt], **options))

    def events(self, prompts: Sequence[str], **options: Any) -> Generator[TextEvent, None, None]:
        """What `generate` puts together, as it happens, for all prompts at once; closing the generator stops them.

        Arguments are checked before this returns; errors as in `generate`.
        """
        return self.run(prompts, **options).events()

    def run(self, prompts: Sequence[str], **options: Any) -> TextRun:
        """Begin what `generate` does: the run has the events, and, with `output_trace`, what the strategies told.

        Arguments are checked before this returns; errors as in `generate`.
        """
        return self._continue([self._ids(prompt) for prompt in prompts], options, strip=False)

    def chat(self, messages: Conversation, *, chat_template: str | None = None, **options: Any) -> str:
        """The answer to a message or a conversation.

        Args:
            messages: the user's message, or messages such as `{"role": "user", "content": "Hello"}`; where the last
                is the assistant's, its text goes on.
            chat_template: how a conversation is written, instead of the model's own template.
            options: fields of GenerationConfig, `seed`, and what else `model.generate` takes.

        Raises:
            TemplateError: the model has no chat template, or it fails.
            ArgumentError, ContextLengthError: as in `generate`.
        """
        return "".join(self.stream_chat(messages, chat_template=chat_template, **options))

    def stream_chat(
        self, messages: Conversation, *, chat_template: str | None = None, **options: Any
    ) -> Generator[str, None, None]:
        """The answer in pieces, as it is written; arguments and errors as in `chat`."""
        return self._pieces(self.chat_events(messages, chat_template=chat_template, **options))

    def chat_events(
        self, messages: Conversation, *, chat_template: str | None = None, **options: Any
    ) -> Generator[TextEvent, None, None]:
        """What `stream_chat` is made of, with token counts and the reason of the end."""
        ids = self.chat_ids(messages, chat_template=chat_template)
        return self._continue([ids], options, strip=True).events()

    def chat_ids(self, messages: Conversation, *, chat_template: str | None = None) -> list[int]:
        """The ids of a conversation up to where the answer begins."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        goes_on = bool(turns) and turns[-1].get("role") == "assistant"
        ids: list[int] = self.tokenizer.apply_chat_template(
            turns,
            chat_template=chat_template,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
        )
        return ids

    def score(
        self,
        text: str,
        *,
        given: str = "",
        cache_implementation: str | None = None,
        cache_config: Any = None,
        offload_folder: str | None = None,
    ) -> Score:
        """How likely the model finds `text`, behind the text `given` or at the beginning of a document.

        A beginning is marked by the BOS token; for a model without one the first token has no probability and is left
        out.

        Args:
            text: what is scored.
            given: what stands before it.
            cache_implementation, cache_config, offload_folder: how keys and values are kept, as in `generate`; None:
                as the model's own generation config says. So the cost of a quantized store can be measured.

        Raises:
            ArgumentError: there is no token to score, or the store cannot be had.
            ContextLengthError: the texts exceed the model's positions.
        """
        store = {"cache_implementation": cache_implementation, "cache_config": cache_config}
        store["offload_folder"] = offload_folder
        options = {name: value for name, value in store.items() if value is not None}
        return score(self.model, self.tokenizer, text, given, options)

    def _ids(self, prompt: str) -> list[int]:
        if not isinstance(prompt, str):
            raise ArgumentError(f"prompt is a {type(prompt).__name__}, {prompt!r}. Pass text, or a list of texts.")
        ids: list[int] = self.tokenizer(prompt, verbose=False)["input_ids"]
        if ids:
            return ids
        if self.tokenizer.bos_token_id is None:
            raise ArgumentError(f"prompt={prompt!r} has no tokens, and the model no BOS token. Pass some text.")
        return [self.tokenizer.bos_token_id]

    def _continue(self, prompts: list[list[int]], options: Mapping[str, Any], strip: bool) -> TextRun:
        options = {"tokenizer": self.tokenizer, "default_new_tokens": DEFAULT_NEW_TOKENS, **options}
        run = start(self.model, prompts, **options)
        stops = [[found] if isinstance(found, str) else found or [] for found in (c.stop_strings for c in run.configs)]
        rows = [
            Continuation(
                self.tokenizer,
                prompts[row],
                stops[row],
                strip,
                healed=run.healed[row],
                exact=specification(run.configs[row]) is not None,
            )
            for row in run.owners
        ]
        return TextRun(run, rows)

    @staticmethod
    def _pieces(events: Generator[TextEvent, None, None]) -> Generator[str, None, None]:
        def pieces() -> Iterator[str]:
            with closing(events):
                for event in events:
                    if event.row:
                        raise ArgumentError(
                            "num_return_sequences above 1 cannot be streamed as one text. Use events()."
                        )
                    if event.text:
                        yield event.text

        return pieces()  # type: ignore[return-value]
