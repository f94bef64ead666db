"""`PretrainedConfig`: what every family's config can do; what its fields mean is the family's.

The file format and the public names follow
https://huggingface.co/docs/transformers/main_classes/configuration.
"""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, overload

from loquent.config.fields import FieldTable, field_table
from loquent.config.json_file import JsonFile, saving_folder
from loquent.config.limits import check_sizes
from loquent.config.reading import CONFIG_FILE, read_config_dict, read_json_object
from loquent.config.spelling import contradiction, dtype_name, labels
from loquent.errors import ArgumentError, ConfigError, hint
from loquent.hub.push import repository_of
from loquent.hub.resolve import HUB_KEYWORDS

C = TypeVar("C", bound="PretrainedConfig")

# Where a config came from and how to run it: true of this process, not of the model.
_NOT_SAVED = frozenset({"name_or_path", "attn_implementation"})
_LABEL_MAPS = ("id2label", "label2id")


_LOADING = frozenset({"attn_implementation", "config", "device_map", "dtype", "trust_remote_code", "use_safetensors"})
"""Further arguments of `from_pretrained` that a misspelt one may have meant."""


class PretrainedConfig(JsonFile):
    """The base of the families' configs: typed fields with defaults, and everything to read, check and write them.

    A family declares its fields as annotated class attributes; the base makes the constructor from them, positional
    arguments in the order of declaration:

        class GPT2Config(PretrainedConfig):
            model_type = "gpt2"
            attribute_map = {"hidden_size": "n_embd"}

            vocab_size: int = 50257
            n_embd: int = 768

            def validate(self) -> None: ...

    `attribute_map` names further spellings of a field, to be read, set and passed. Fields that the class does not
    declare are kept as attributes and saved again. What a config was made from is written again as it was, value for
    value, unless it was changed since; a field that `None` leaves to the family may therefore be filled by `validate`.

    Raises:
        ConfigError: a field has a value of the wrong type, fields contradict one another, or a size is absurd.
        TypeError: too many positional arguments, or one given twice.
    """

    # A constant of the class; only the base class itself takes it from the file.
    model_type = ""
    attribute_map: ClassVar[Mapping[str, str]] = {}
    _table: ClassVar[FieldTable]

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    sep_token_id: int | None = None
    decoder_start_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    return_dict: bool = True
    is_encoder_decoder: bool = False
    is_decoder: bool = False
    add_cross_attention: bool = False
    architectures: list[str] | None = None
    dtype: str | None = None
    id2label: dict[int, str] = {0: "LABEL_0", 1: "LABEL_1"}  # noqa: RUF012 - a default, copied per config
    label2id: dict[str, int] = {"LABEL_0": 0, "LABEL_1": 1}  # noqa: RUF012
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    task_specific_params: dict[str, Any] | None = None
    tokenizer_class: str | None = None
    transformers_version: str | None = None
    name_or_path: str = ""
    attn_implementation: str | None = None

    def __init_subclass__(cls, *, shared: bool = False, **kwargs: Any) -> None:
        """Reads the class's declarations; `shared` marks a base class whose fields are keyword-only for families."""
        super().__init_subclass__(**kwargs)
        cls._table = field_table(cls, shared=shared, aliases=frozenset(cls.attribute_map))
        for alias, name in cls.attribute_map.items():
            setattr(cls, alias, property(operator.attrgetter(name), doc=f"Another name of `{name}`."))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = self._table.own
        if len(args) > len(names):
            raise TypeError(
                f"{type(self).__name__} takes {len(names)} positional arguments, but {len(args)} were given"
            )
        positional = dict(zip(names, args))
        if twice := sorted(set(positional) & set(kwargs)):
            raise TypeError(f"{type(self).__name__} got two values for {', '.join(twice)}")
        given = positional | kwargs
        self._fill(given, {})
        # Under the declared names alone: an alias in a call is a convenience, not something to save.
        saved = self._spelled()
        self._remember({name: value for name, value in given.items() if name in saved})

    def _fill(self, given: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        """Sets every field from its default, `given` and `overrides`, each in any spelling; the last one wins."""
        self.__dict__.update(copy.deepcopy(self._table.defaults), _extra={}, _origin={})
        self.__dict__["model_type"] = self._checked_model_type(given.get("model_type"))
        for name, value in (self.canonical(given) | self.canonical(overrides)).items():
            if name != "model_type":
                self._set(name, copy.deepcopy(value))
        self._check()

    def _remember(self, given: Mapping[str, Any]) -> None:
        """Keeps what the fields were given as, beside what they became, for `to_dict`."""
        now = self._spelled()
        for name, raw in given.items():
            if name not in _NOT_SAVED:
                became = now[name] if name in now else getattr(self, name)
                self._origin[name] = (copy.deepcopy(raw), copy.deepcopy(became))

    @classmethod
    def _made_from(cls: type[C], given: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> C:
        # Not through __init__, whose keyword names could clash with what a file calls its fields ("self").
        config = cls.__new__(cls)
        config._fill(given, {})
        config._remember(given)
        if overrides:
            origin = config._origin
            config._fill(given, overrides)
            config._origin = origin
        return config

    def _checked_model_type(self, given: Any) -> str:
        own = type(self).model_type
        if given is not None and (not isinstance(given, str) or (own and given != own)):
            raise ConfigError(
                f"{type(self).__name__} describes models of model_type={own!r}, not {given!r}. "
                "Use AutoConfig, or the config class of that type."
            )
        return own or given or ""

    @classmethod
    def canonical(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `given` under their declared names, whatever accepted spelling they come in.

        Families with spellings of more than one field (as `rope_parameters`) extend this.

        Raises:
            ConfigError: two spellings of one field contradict each other.
        """
        fields: dict[str, Any] = {}
        aliases = {"torch_dtype": "dtype", **cls.attribute_map}
        for name, value in given.items():
            own = aliases.get(name, name)
            value = dtype_name(cls.__name__, value) if own == "dtype" else value
            if own in fields and fields[own] != value:
                raise contradiction(cls.__name__, own, fields[own], name, value)
            fields[own] = value
        if (count := fields.pop("num_labels", None)) is not None:
            fields.update(labels(cls.__name__, count, fields.get("id2label")))
        if isinstance(names := fields.get("id2label"), Mapping) and fields.get("label2id") is None:
            # JSON writes the indices as texts.
            fields["label2id"] = {name: index for index, name in cls._table.coerce("id2label", names).items()}
        # Older files say null where they mean the default labels.
        return {name: value for name, value in fields.items() if value is not None or name not in _LABEL_MAPS}

    def validate(self) -> None:
        """For families: raises ConfigError where fields contradict one another; may fill fields that are None."""

    def _check(self) -> None:
        check_sizes(type(self).__name__, self.__dict__, self.attribute_map)
        self.validate()

    def _set(self, name: str, value: Any) -> None:
        if name in self._table.defaults:
            self.__dict__[name] = self._table.coerce(name, value)
        else:
            self._extra[name] = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_name_or_path":
            self.name_or_path = value
        elif name.startswith("_"):
            self.__dict__[name] = value
        elif callable(getattr(type(self), name, None)):
            raise ConfigError(f"{type(self).__name__}.{name} is a method and cannot be set.")
        elif name != "num_labels" or value != self.num_labels:
            for own, canonical in self.canonical({name: value}).items():
                self._set(own, canonical)

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is neither a field nor an alias. While it is unpickled there is no _extra yet.
        extra = self.__dict__.get("_extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def __delattr__(self, name: str) -> None:
        if name not in self._extra:
            raise AttributeError(f"{type(self).__name__}.{name} is not an additional field and cannot be deleted")
        del self._extra[name]
        self._origin.pop(name, None)

    @property
    def torch_dtype(self) -> str | None:
        """The older name of `dtype`."""
        return self.dtype

    @property
    def num_labels(self) -> int:
        """How many labels a classification head has: the length of `id2label`."""
        return len(self.id2label)

    @property
    def use_return_dict(self) -> bool:
        """The older name of `return_dict`."""
        return self.return_dict

    @property
    def _name_or_path(self) -> str:
        """What programs for transformers read `name_or_path` as."""
        return self.name_or_path

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set fields, each in any of its spellings; those that the family does not know become attributes.

        Raises:
            ConfigError: a value is of the wrong type.
        """
        for name, value in config_dict.items():
            setattr(self, name, value)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """The part of the config that describes text; the config itself, but for models of several kinds of input."""
        return self

    def _spelled(self) -> dict[str, Any]:
        """Every field under each name that it is saved as; families with several spellings extend this."""
        fields: dict[str, Any] = {
            name: self.__dict__[name] for name in self._table.defaults if name not in _NOT_SAVED
        } | self._extra
        if self.model_type:
            fields["model_type"] = self.model_type
        return fields | {"torch_dtype": self.dtype}

    def to_dict(self) -> dict[str, Any]:
        """Every field and its value, under the names of both 4.x and 5.x of transformers where they differ."""
        fields = copy.deepcopy(self._spelled())
        for name, (raw, then) in self._origin.items():
            now = fields[name] if name in fields else getattr(self, name)
            fields[name] = copy.deepcopy(raw if now == then else now)
        return fields

    def to_diff_dict(self) -> dict[str, Any]:
        """The fields that are saved: the family's own, all that were given, and the common ones that differ."""
        unsaid = {name: value for name, value in self._table.defaults.items() if name not in self._table.own}
        unsaid["torch_dtype"] = unsaid["dtype"]
        return {
            name: value
            for name, value in self.to_dict().items()
            if name in self._origin or name not in unsaid or value != unsaid[name]
        }

    @classmethod
    def from_dict(
        cls: type[C], config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **overrides: Any
    ) -> Any:
        """A config from the fields of a `config.json`, with `overrides` in their place.

        Returns:
            The config; with `return_unused_kwargs` a pair of it and the overrides that name no field.

        Raises:
            ArgumentError: an override names no field, and `return_unused_kwargs` is not set.
            ConfigError: the fields make no config.
        """
        known = cls._known_names() | set(config_dict)
        unused = {name: value for name, value in overrides.items() if name not in known}
        if unused and not return_unused_kwargs:
            raise ArgumentError(
                f"{cls.__name__} has no field {', '.join(map(repr, sorted(unused)))}, and from_pretrained() no such "
                f"argument.{hint(min(unused), known | HUB_KEYWORDS | _LOADING)} A field of your own can be set as an "
                "attribute of the config, which saves it."
            )
        used = {name: value for name, value in overrides.items() if name in known}
        config = cls._made_from(config_dict, used)
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def _known_names(cls) -> frozenset[str]:
        return frozenset({*cls._table.defaults, *cls.attribute_map, "torch_dtype", "num_labels"})

    @classmethod
    def from_json_file(cls: type[C], json_file: str | os.PathLike[str]) -> C:
        """A config from a JSON file.

        Raises:
            ConfigError: the file is not a JSON object, or its fields make no config.
        """
        return cls._made_from(read_json_object(Path(json_file)))

    @overload
    @classmethod
    def from_pretrained(
        cls: type[C], name_or_path: str | os.PathLike[str], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[C, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls: type[C],
        name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Any,
    ) -> C: ...

    @classmethod
    def from_pretrained(
        cls: type[C], name_or_path: str | os.PathLike[str], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The config of a model.

        Args:
            name_or_path: a folder, a repository on the hub, or the path of a JSON file.
            return_unused_kwargs: return a pair of the config and the arguments that name no field.
            **kwargs: `revision`, `cache_dir`, `token`, `local_files_only`, `subfolder`, `force_download` for the hub;
                all others override fields.

        Raises:
            HubError, CheckpointError: the name could not be resolved, or the folder has no config.
            ConfigError: the file is not a JSON object, or its fields make no config.
            ArgumentError: an override names no field.
        """
        hub = {name: kwargs.pop(name) for name in HUB_KEYWORDS & set(kwargs)}
        fields = read_config_dict(name_or_path, **hub)
        made = cls.from_dict(fields, return_unused_kwargs=return_unused_kwargs, **kwargs)
        config = made[0] if return_unused_kwargs else made
        config.name_or_path = str(name_or_path)
        return made

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **push: Any) -> None:
        """Writes `config.json` into a folder, which is made if need be, and pushes it to the hub if asked to.

        Args:
            save_directory: the folder.
            push_to_hub: upload it too, to `repo_id=`, or else to the repository that the folder is named like.
            **push: the arguments of `push_to_hub`.

        Raises:
            ArgumentError: the folder is a file.
            ConfigError: the fields contradict one another, or JSON cannot hold one.
            HubError: the upload failed.
        """
        folder = saving_folder(save_directory)
        self._save(folder)
        if push_to_hub:
            self.push_to_hub(push.pop("repo_id", None) or repository_of(save_directory), **push)
        elif push:
            raise ArgumentError(
                f"{sorted(push)} are for uploading. Pass push_to_hub=True with them, or leave them out."
            )

    def _save(self, folder: Path, file_name: str | None = None) -> None:
        self._check()
        self.to_json_file(folder / (file_name or CONFIG_FILE))


PretrainedConfig._table = field_table(PretrainedConfig, shared=True, aliases=frozenset())
