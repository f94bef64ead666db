"""The text-generation pipeline: prompts or chats in, texts out, in transformers' calling convention; loads nothing.

https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TextGenerationPipeline
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from loquent.config import GenerationConfig, PretrainedConfig
from loquent.errors import ArgumentError
from loquent.generation import Bound, run_all
from loquent.pipelines.inputs import Prompt, checked_prompt, in_batches, is_listed, is_single, items_of
from loquent.tokenization import PreTrainedTokenizer

DEFAULT_NEW_TOKENS = 256
LISTED_BATCH = 16

Record = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What a call takes besides the arguments of `generate()`; None stands for the default.

    return_full_text: the prompt in front of what was written (True), or not.
    return_tensors: ids (`generated_token_ids`) instead of text; `return_text` is its opposite.
    clean_up_tokenization_spaces: remove spaces before punctuation (True), as transformers' pipeline does.
    prefix: text that every prompt is read behind, and that the results do not show.
    handle_long_generation: "hole" drops the beginning of prompts that leave no room for what is asked for.
    continue_final_message: go on with a chat's last message; by default where it is the assistant's.
    stop_sequence: a text behind which to stop.
    truncation, add_special_tokens: passed to the tokenizer; with truncation, `max_length` is.
    batch_size: how many prompts are read together; 1 for generators and 16 for lists by default.
    padding, num_workers: accepted; rows are never padded, and there is nothing for workers to do.
    """

    return_full_text: bool | None = None
    return_tensors: bool | None = None
    return_text: bool | None = None
    clean_up_tokenization_spaces: bool | None = None
    prefix: str | None = None
    handle_long_generation: str | None = None
    continue_final_message: bool | None = None
    stop_sequence: str | None = None
    truncation: bool | str | None = None
    add_special_tokens: bool | None = None
    batch_size: int | None = None
    padding: bool | str | None = None
    num_workers: int | None = None

    def __post_init__(self) -> None:
        given = [
            name for name in ("return_full_text", "return_tensors", "return_text") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ArgumentError(f"{' and '.join(given)} exclude each other. Pass one of them.")
        if self.handle_long_generation not in (None, "hole"):
            raise ArgumentError(f'handle_long_generation={self.handle_long_generation!r} must be "hole" or None.')
        if self.batch_size is not None and self.batch_size < 1:
            raise ArgumentError(f"batch_size={self.batch_size} must be at least 1.")


_OPTIONS = frozenset(field.name for field in fields(Options))


class CausalModel(Bound, Protocol):
    """What the pipeline needs of a model."""

    config: PretrainedConfig


class TextGenerationPipeline:
    """Continues texts and chats.

    The model's own generation config says how; what it leaves open is sampled with temperature 0.7, up to 256 new
    tokens or as many as the model has positions left, as transformers' pipeline does.
    """

    task = "text-generation"

    def __init__(self, model: CausalModel, tokenizer: PreTrainedTokenizer, **defaults: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._defaults = defaults
        self._split({})  # so that wrong defaults fail here and not at the first call

    @property
    def generation_config(self) -> GenerationConfig:
        """What calls use unless told otherwise."""
        config = self.model.generation_config.over(_sampling())
        config.update(**self._task_parameters())
        return config

    @property
    def device(self) -> Any:
        """Where the model runs."""
        return self.model.device

    def __call__(self, text_inputs: Any, **options: Any) -> Any:
        """Continue a prompt, or each of several.

        Args:
            text_inputs: a text or a chat (a list of messages); a list of either; or an iterable of either (a
                generator, a data set), which is read as the results are asked for.
            options: see `Options`, and the arguments of `generate()`.

        Returns:
            For one prompt a list with a record for each text, `{"generated_text": ...}`: a text, or for a chat the
            conversation with its answer (or only the answer, with `return_full_text=False`). For a list a list of
            such lists, and for an iterable an iterator of them, in order.

        Raises:
            ArgumentError: the inputs are none of these, or an option is unknown or cannot work.
            TemplateError: a chat, and the model has no chat template.
            ContextLengthError: a prompt and its new tokens exceed the model's positions.
        """
        own, generating = self._split(options)
        if is_single(text_inputs):
            return self._batch([checked_prompt(text_inputs)], own, generating)[0]
        if is_listed(text_inputs):
            prompts = [checked_prompt(prompt) for prompt in text_inputs]
            batches = in_batches(prompts, own.batch_size or LISTED_BATCH)
            return [records for batch in batches for records in self._batch(batch, own, generating)]
        return self._lazily(items_of(text_inputs), own, generating)

    def _lazily(self, prompts: Iterator[Any], own: Options, generating: dict[str, Any]) -> Iterator[list[Record]]:
        for batch in in_batches(prompts, own.batch_size or 1):
            yield from self._batch([checked_prompt(prompt) for prompt in batch], own, generating)

    def _split(self, options: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
        """The pipeline's options and those of `generate()`, the call's over the pipeline's own."""
        merged = {**self._defaults, **options}
        own = Options(**{name: value for name, value in merged.items() if name in _OPTIONS})
        generating = {name: value for name, value in merged.items() if name not in _OPTIONS}
        if own.stop_sequence is not None:
            if generating.get("stop_strings") is not None:
                raise ArgumentError("stop_sequence and stop_strings say the same. Pass stop_strings.")
            generating["stop_strings"] = [own.stop_sequence]
        generating.setdefault("generation_config", self.generation_config)
        return own, {"tokenizer": self.tokenizer, "default_new_tokens": DEFAULT_NEW_TOKENS, **generating}

    def _batch(self, prompts: Sequence[Prompt], own: Options, generating: dict[str, Any]) -> list[list[Record]]:
        ids = [self._ids(prompt, own, generating) for prompt in prompts]
        generating = self._with_prefix_length(own, generating)
        run, results = run_all(self.model, ids, **generating)
        copies = len(results) // len(prompts)
        return [
            [
                self._record(prompt, row, row[: len(row) - healed] + list(result.tokens), own)
                for result in results[number * copies : (number + 1) * copies]
            ]
            for number, (prompt, row, healed) in enumerate(zip(prompts, ids, run.healed))
        ]

    def _ids(self, prompt: Prompt, own: Options, generating: dict[str, Any]) -> list[int]:
        encoding: dict[str, Any] = {}
        if own.truncation is not None:
            encoding = {"truncation": own.truncation, "max_length": generating.get("max_length")}
        if isinstance(prompt, str):
            if own.add_special_tokens is not None:
                encoding["add_special_tokens"] = own.add_special_tokens
            ids: list[int] = self.tokenizer((own.prefix or "") + prompt, verbose=False, **encoding)["input_ids"]
            ids = ids or self._beginning(prompt)
        else:
            goes_on = _goes_on(prompt, own)
            ids = self.tokenizer.apply_chat_template(
                prompt, add_generation_prompt=not goes_on, continue_final_message=goes_on, **encoding
            )
        return ids if own.handle_long_generation is None else self._shortened(ids, generating)

    def _beginning(self, prompt: str) -> list[int]:
        if self.tokenizer.bos_token_id is None:
            raise ArgumentError(f"the prompt {prompt!r} has no tokens, and the model no BOS token. Pass some text.")
        return [self.tokenizer.bos_token_id]

    def _shortened(self, ids: list[int], generating: dict[str, Any]) -> list[int]:
        """The end of a prompt that leaves room for the new tokens that were asked for."""
        positions = self.tokenizer.model_max_length
        wanted = generating.get("max_new_tokens")
        if wanted is None:
            length = generating.get("max_length")
            wanted = DEFAULT_NEW_TOKENS if length is None else length - len(ids)
        if wanted < 1 or wanted >= positions:
            raise ArgumentError(
                f'handle_long_generation="hole" cannot make room for {wanted} new tokens in {positions} positions. '
                "Pass a max_new_tokens between."
            )
        return ids[-(positions - wanted) :]

    def _with_prefix_length(self, own: Options, generating: dict[str, Any]) -> dict[str, Any]:
        """Lengths that count the prompt do not count the prefix."""
        if not own.prefix:
            return generating
        prefix = len(self.tokenizer(own.prefix, add_special_tokens=bool(own.add_special_tokens))["input_ids"])
        longer = {name: generating[name] + prefix for name in ("max_length", "min_length") if generating.get(name)}
        return {**generating, **longer}

    def _record(self, prompt: Prompt, ids: list[int], written: list[int], own: Options) -> Record:
        """One text: `ids` are the prompt's, `written` all of it (a prompt that was healed ends differently there)."""
        if own.return_tensors or own.return_text is False:
            return {"generated_token_ids": written}
        clean = own.clean_up_tokenization_spaces is not False
        before = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
        whole = self.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
        text = whole[len(before) :]
        if own.return_full_text is False:
            return {"generated_text": text}
        if isinstance(prompt, str):
            return {"generated_text": prompt + text}
        if _goes_on(prompt, own):
            last = {**prompt[-1], "content": prompt[-1]["content"] + text}
            return {"generated_text": [*prompt[:-1], last]}
        return {"generated_text": [*prompt, {"role": "assistant", "content": text}]}

    def _task_parameters(self) -> dict[str, Any]:
        """What a model's config sets for this task, as GPT-2's does."""
        parameters = self.model.config.to_dict().get("task_specific_params") or {}
        return dict(parameters.get(self.task) or {})


def _sampling() -> GenerationConfig:
    # As if from a file: a caller's do_sample=False is no contradiction of a temperature that nobody asked for.
    config: GenerationConfig = GenerationConfig.from_dict({"do_sample": True, "temperature": 0.7})
    return config


def _goes_on(chat: Any, own: Options) -> bool:
    if own.continue_final_message is not None:
        return own.continue_final_message
    return bool(chat[-1]["role"] == "assistant")
