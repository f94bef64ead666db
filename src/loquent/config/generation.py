"""`GenerationConfig`: how a model writes, as a record of the arguments of `generate()`; decides and computes nothing.

Names and defaults are those of
https://huggingface.co/docs/transformers/main_classes/text_generation#transformers.GenerationConfig.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from loquent.config.caches import plain_fields
from loquent.config.fields import FieldTable, field_table
from loquent.config.generation_checks import check_conflicts, check_saved, check_values
from loquent.config.json_file import JsonFile, saving_folder
from loquent.config.reading import read_config_dict
from loquent.config.watermarking import watermarking_config
from loquent.errors import ArgumentError, ConfigError
from loquent.hub.push import repository_of
from loquent.hub.resolve import HUB_KEYWORDS, is_plain_name, resolve_file

if TYPE_CHECKING:
    from loquent.config.base import PretrainedConfig

G = TypeVar("G", bound="GenerationConfig")

GENERATION_CONFIG_FILE = "generation_config.json"

# About the file, not about generation: kept in it, and not printed.
_METADATA = frozenset({"transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash"})
# Objects that mean something in this process only.
_NOT_SAVED = frozenset({"compile_config", "_commit_hash", "_original_object_hash"})
_ARGUMENTS_OF_GENERATE = frozenset(
    {
        *("assistant_model", "logits_processor", "negative_prompt_ids", "negative_prompt_attention_mask"),
        *("prefix_allowed_tokens_fn", "stopping_criteria", "streamer", "synced_gpus", "use_model_defaults"),
    }
)


class GenerationConfig(JsonFile):
    """The arguments of `generate()`, with their defaults, to keep, print, save beside a model, and share.

    Unknown fields are kept as attributes and saved again. None for a field whose default is a value stands for that
    default (but `top_k=None` keeps every token). The config remembers which fields its caller set (`explicit`), so
    that `max_length` means what it says where it was set, and only what was asked for can be a contradiction.

    Raises:
        ArgumentError: a value cannot work, is of the wrong type, contradicts another one that was set as explicitly,
            or the name is of an argument that only `generate()` takes.
    """

    _table: ClassVar[FieldTable]

    # How long: `max_length` counts the prompt, `max_new_tokens` does not and wins. Seconds for `max_time`.
    max_length: int = 20
    max_new_tokens: int | None = None
    min_length: int = 0
    min_new_tokens: int | None = None
    early_stopping: bool | Literal["never"] = False
    max_time: float | None = None
    stop_strings: str | list[str] | None = None

    # Which strategy.
    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    penalty_alpha: float | None = None
    dola_layers: Literal["low", "high"] | list[int] | None = None
    seed: int | None = None

    # How keys and values are kept (docs/memory.md). `cache_config` has the fields of a QuantizedCacheConfig, or an
    # `offload_folder`, for which there is a field too.
    cache_implementation: str | None = None
    cache_config: dict[str, Any] | None = None
    offload_folder: str | None = None
    # Accepted, and without effect here.
    use_cache: bool = True
    max_cache_len: int | None = None
    return_legacy_cache: bool | None = None
    prefill_chunk_size: int | None = None

    # What happens to the logits.
    temperature: float = 1.0
    top_k: int | None = 50
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    diversity_penalty: float = 0.0
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: list[list[int]] | None = None
    force_words_ids: list[list[int] | list[list[int]]] | None = None
    renormalize_logits: bool = False
    constraints: list[Any] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    remove_invalid_values: bool = False
    exponential_decay_length_penalty: tuple[int, float] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    sequence_bias: dict[tuple[int, ...], float] | list[tuple[list[int], float]] | None = None
    token_healing: bool = False
    guidance_scale: float | None = None
    low_memory: bool | None = None
    watermarking_config: Any = None

    # Rules that transformers 4 has not, under the names of vLLM, llama.cpp and text-generation-webui. A breaker of DRY
    # is a text or a token; `dry_range` is how many of the last tokens are looked at (0: all). Mirostat takes the place
    # of `top_k` and all else that truncates.
    top_h: float | None = None
    top_n_sigma: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breakers: list[str | int] = ["\n", ":", '"', "*"]  # noqa: RUF012 - a default, copied for each config
    dry_range: int = 0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1

    # What the text must be, one of them at most: JSON of a schema (OpenAI's `{"type": "json_schema", "json_schema":
    # {"schema": ...}}` or `{"type": "json_object"}`, the schema itself, or a pydantic model), a text that a regular
    # expression matches as a whole, a text of a grammar (https://github.com/guidance-ai/llguidance's Lark syntax), or
    # one of some texts. They need a tokenizer, and `pip install "loquent[structured]"`.
    response_format: dict[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = None

    # What is returned.
    num_return_sequences: int = 1
    output_attentions: bool = False
    output_hidden_states: bool = False
    output_scores: bool = False
    output_logits: bool | None = None
    output_trace: bool = False
    return_dict_in_generate: bool = False

    # Special tokens.
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    # For encoder-decoder models.
    encoder_no_repeat_ngram_size: int = 0
    decoder_start_token_id: int | list[int] | None = None

    # Speculation.
    is_assistant: bool = False
    num_assistant_tokens: int = 20
    num_assistant_tokens_schedule: Literal["constant", "heuristic", "heuristic_transient"] = "constant"
    assistant_confidence_threshold: float = 0.4
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int | None = None
    assistant_early_exit: int | None = None
    assistant_lookbehind: int = 10
    target_lookbehind: int = 10

    # Compilation: accepted, and without effect here.
    compile_config: Any = None
    disable_compile: bool = False

    def __init__(self, **kwargs: Any) -> None:
        self._fill({}, kwargs)

    def _fill(self, stored: Mapping[str, Any], explicit: Mapping[str, Any]) -> None:
        """Sets what a file says, then what the caller says."""
        self.__dict__.update(copy.deepcopy(self._table.defaults), _extra={}, _nulls=set(), _set_at={}, _step=0)
        self._put_all(stored)
        self._step = 1
        self._put_all(explicit)
        self.validate()

    @classmethod
    def _made_from(cls: type[G], stored: Mapping[str, Any], explicit: Mapping[str, Any]) -> G:
        # Not through __init__, whose keyword names could clash with what a file calls its fields ("self").
        config = cls.__new__(cls)
        config._fill(stored, explicit)
        return config

    @property
    def explicit(self) -> frozenset[str]:
        """The fields that the caller set, in the constructor, by assignment or by `update`; none that a file set."""
        return frozenset(name for name, step in self._set_at.items() if step > 0)

    def was_set(self, name: str) -> bool:
        """Whether a field has its value from the caller or a file, rather than from the defaults."""
        return name in self._set_at or name in self._extra

    def stands(self, name: str, beside: str) -> bool:
        """Whether the caller set a field, and `beside` no later than it: what was set later wins."""
        return name in self.explicit and self._set_at[name] >= self._set_at.get(beside, 0)

    def _put_all(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name in _ARGUMENTS_OF_GENERATE:
                raise ArgumentError(f"{name} is not a field of GenerationConfig. Pass it to generate().")
            if name in self._table.defaults:
                self._put(name, value)
            else:
                self._extra[name] = copy.deepcopy(value)

    def _put(self, name: str, value: Any) -> None:
        default = self._table.defaults[name]
        if value is None and default is not None and name != "top_k":
            self.__dict__[name] = copy.deepcopy(default)
            self._nulls.add(name)
            self._set_at.pop(name, None)
            return
        if name == "cache_config":
            value = plain_fields(value)
        if name == "offload_folder" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if name == "watermarking_config":
            value = watermarking_config(value)
        if name == "response_format" and hasattr(value, "model_json_schema"):
            value = value.model_json_schema()
        self.__dict__[name] = copy.copy(self._table.coerce(name, value))
        self._nulls.discard(name)
        self._set_at[name] = self._step

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
            return
        if callable(getattr(GenerationConfig, name, None)) or name == "explicit":
            raise ArgumentError(f"GenerationConfig.{name} cannot be set; it is no field.")
        before = copy.deepcopy(self.__dict__)
        self._step += 1
        try:
            self._put_all({name: value})
            check_values(self.__dict__)
        except ArgumentError:
            self.__dict__.update(before)
            raise

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("_extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"GenerationConfig has no field {name!r}")

    def __delattr__(self, name: str) -> None:
        if name not in self._extra:
            raise AttributeError(f"GenerationConfig.{name} is not an additional field and cannot be deleted")
        del self._extra[name]

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Sets the fields that the config has, and returns the arguments that name none.

        Raises:
            ArgumentError: a value cannot work, or contradicts another one set as explicitly. The config is then
                as it was before.
        """
        known = {name: value for name, value in kwargs.items() if name in self._table.defaults or name in self._extra}
        before = copy.deepcopy(self.__dict__)
        self._step += 1
        try:
            self._put_all(known)
            self.validate()
        except ArgumentError:
            self.__dict__.update(before)
            raise
        return {name: value for name, value in kwargs.items() if name not in known}

    def copy(self: G, **changes: Any) -> G:
        """A config of its own with the same fields, `changes` among them; unknown names are kept as new fields."""
        made = copy.deepcopy(self)
        for name, value in made.update(**changes).items():
            setattr(made, name, value)
        return made

    def over(self: G, base: GenerationConfig) -> G:
        """A config of its own with this one's fields where they were set, and those of `base` where they were not."""
        made = copy.deepcopy(self)
        made.__dict__.update(copy.deepcopy(base.__dict__))
        for name in [*self._table.defaults, *self._extra]:
            if self.was_set(name):
                made._put_all({name: getattr(self, name)})
        for name, step in self._set_at.items():
            made._set_at[name] = step and base._step + step
        made._step = base._step + self._step
        return made

    def validate(self) -> None:
        """Checks every value, and that nothing which was set explicitly contradicts something else that was.

        What was set later wins: `do_sample=False` over a config with a temperature is no contradiction.

        Raises:
            ArgumentError: names the argument, the value and the remedy.
        """
        check_values(self.__dict__)
        check_conflicts(self.__dict__, {name: step for name, step in self._set_at.items() if step > 0})

    def to_dict(self) -> dict[str, Any]:
        """Every field and its value, those of `explicit` and the unknown ones included."""
        fields = {name: self.__dict__[name] for name in self._table.defaults} | dict.fromkeys(self._nulls)
        return {
            name: _plain(name, copy.deepcopy(value))
            for name, value in (fields | self._extra).items()
            if name not in _NOT_SAVED
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """The fields that differ from the defaults, which are those that are saved."""
        defaults = self._table.defaults
        return {
            name: value for name, value in self.to_dict().items() if name not in defaults or value != defaults[name]
        }

    def to_json_string(self, use_diff: bool = True, ignore_metadata: bool = False) -> str:
        """The fields as JSON with sorted keys.

        Args:
            use_diff: only those that differ from the defaults.
            ignore_metadata: without what says where the file came from (`transformers_version`).
        """
        fields = self.to_diff_dict() if use_diff else self.to_dict()
        return self._as_json({name: fields[name] for name in fields if not (ignore_metadata and name in _METADATA)})

    def __repr__(self) -> str:
        fields = {name: value for name, value in self.to_diff_dict().items() if name not in _METADATA}
        if self.constraints is not None:  # objects, which no file holds
            fields["constraints"] = [repr(constraint) for constraint in self.constraints]
        return f"{type(self).__name__} {self._as_json(fields)}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return NotImplemented
        ours, theirs = (
            {name: value for name, value in config.to_dict().items() if name not in _METADATA}
            for config in (self, other)
        )
        return ours == theirs

    __hash__ = None  # it can change, so it cannot be a key

    @classmethod
    def from_dict(
        cls: type[G], config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any
    ) -> Any:
        """A config from the fields of a `generation_config.json`, with `overrides` in their place.

        Returns:
            The config; with `return_unused_kwargs` a pair of it and the overrides that name no field.

        Raises:
            ConfigError: the fields make no config.
            ArgumentError: an override cannot work, or names no field while `return_unused_kwargs` is not set.
        """
        try:
            config = cls._made_from(config_dict, {})
        except ArgumentError as error:
            raise ConfigError(f"The stored generation config cannot work: {error}") from error
        unused = config.update(**overrides)
        if unused and not return_unused_kwargs:
            raise ArgumentError(f"GenerationConfig has no field {', '.join(map(repr, sorted(unused)))}.")
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def from_pretrained(
        cls: type[G],
        pretrained_model_name: str | os.PathLike[str],
        config_file_name: str | None = None,
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The generation config in a model's folder or repository, or in a JSON file.

        Args:
            pretrained_model_name: a folder, a repository on the hub, or the path of a JSON file.
            config_file_name: which one, where there are several ("generation_config.json" if None).
            return_unused_kwargs: return a pair of the config and the arguments that name no field.
            **kwargs: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download` for the hub;
                all others override fields.

        Raises:
            HubError, CheckpointError: the name could not be resolved, or has no such file.
            ConfigError: the file's fields make no config.
            ArgumentError: an override cannot work, or names no field.
        """
        hub = {name: kwargs.pop(name) for name in HUB_KEYWORDS & set(kwargs)}
        fields = read_config_dict(pretrained_model_name, config_file_name or GENERATION_CONFIG_FILE, **hub)
        return cls.from_dict(fields, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @classmethod
    def of_model(cls: type[G], name_or_path: str | os.PathLike[str], config: PretrainedConfig, **hub: Any) -> G:
        """The generation config that a model brings: its own file's, or else what its `config.json` says.

        Raises:
            HubError: the name could not be resolved.
            ConfigError: the file's fields make no config.
        """
        path = resolve_file(name_or_path, GENERATION_CONFIG_FILE, required=False, **hub)
        made: G = cls.from_model_config(config) if path is None else cls.from_pretrained(path)
        return made

    @classmethod
    def from_model_config(cls: type[G], model_config: PretrainedConfig) -> G:
        """What a model's config says about generation: its special tokens, and the fields that older files hold there.

        Raises:
            ConfigError: such a field has a value that cannot work.
        """
        stored = {
            name: value
            for name, value in model_config.get_text_config(decoder=True).to_dict().items()
            if name in cls._table.defaults and value is not None
        }
        made: G = cls.from_dict(stored)
        if any((made.output_attentions, made.output_hidden_states, made.output_scores, made.output_logits)):
            # Not an assignment: nobody asked for it.
            made.__dict__["return_dict_in_generate"] = True
        made._extra["_from_model_config"] = True
        return made

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        config_file_name: str | None = None,
        push_to_hub: bool = False,
        **push: Any,
    ) -> None:
        """Writes the config into a folder, which is made if need be, and pushes it to the hub if asked to.

        Args:
            save_directory: the folder.
            config_file_name: under which name; several can lie in one folder ("generation_config.json" if None).
            push_to_hub: upload it too, to `repo_id=`, or else to the repository that the folder is named like.
            **push: the arguments of `push_to_hub`.

        Raises:
            ArgumentError: a field that only sampling uses was set without `do_sample=True` (and the like), the
                folder is a file, or the name is none of a file.
            HubError: the upload failed.
        """
        folder = saving_folder(save_directory)
        self._save(folder, config_file_name)
        if push_to_hub:
            repo_id = push.pop("repo_id", None) or repository_of(save_directory)
            self.push_to_hub(repo_id, config_file_name=config_file_name, **push)
        elif push:
            raise ArgumentError(
                f"{sorted(push)} are for uploading. Pass push_to_hub=True with them, or leave them out."
            )

    def _save(self, folder: Path, file_name: str | None = None) -> None:
        name = file_name or GENERATION_CONFIG_FILE
        if not is_plain_name(name):
            raise ArgumentError(
                f"config_file_name={name!r} does not name a file in the folder. Pass a plain file name."
            )
        check_values(self.__dict__)
        check_saved(self.__dict__, self.explicit)
        self.to_json_file(folder / name)


def _plain(name: str, value: Any) -> Any:
    """A field's value as JSON holds it."""
    if name == "sequence_bias" and isinstance(value, dict):
        return [[list(tokens), bias] for tokens, bias in value.items()]
    return value.to_dict() if hasattr(value, "to_dict") else value


GenerationConfig._table = field_table(GenerationConfig, shared=False, aliases=frozenset())
GenerationConfig._table.error = ArgumentError
