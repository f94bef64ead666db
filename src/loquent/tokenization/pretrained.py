"""Loading and saving a tokenizer as the files of a model's folder; what the files mean is in `loading`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from loquent.config.json_file import saving_folder
from loquent.errors import ArgumentError, TokenizerError
from loquent.tokenization import loading
from loquent.tokenization.backend import library_errors
from loquent.tokenization.chat import Chat
from loquent.tokenization.loading import StoredTokenizer, open_folder
from loquent.tokenization.options import OPTIONS, as_json, checked_options, describe

_Self = TypeVar("_Self", bound="Pretrained")
# Arguments of transformers' loaders that change nothing here: there is one kind of tokenizer, and no remote code.
WITHOUT_EFFECT = frozenset({"use_fast", "resume_download", "code_revision"})
# What values of other kinds than expected lead to, in files that anybody may have written.
_NONSENSE = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


class Pretrained(Chat):
    """The file half of a tokenizer."""

    vocab_files_names: ClassVar[Mapping[str, str]]
    defaults: ClassVar[Mapping[str, Any]]
    # The name that tokenizer_config.json gets. A class that is not known here is read by a generic one and keeps its
    # name, so that other programs find theirs.
    saved_class_name: str

    _stored: dict[str, Any]
    _vocab_files: dict[str, Path]
    init_kwargs: dict[str, Any]

    @classmethod
    def from_pretrained(
        cls: type[_Self], pretrained_model_name_or_path: str | os.PathLike[str], *files: str | Path, **options: Any
    ) -> _Self:
        """The tokenizer of a model's folder, or of a repository "org/name".

        Args:
            pretrained_model_name_or_path: a folder, or the name of a repository.
            files: vocabulary files instead of the folder's, as the class takes them.
            options: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`, `force_download` for the hub;
                options of the tokenizer, which come before those that the folder gives.

        Raises:
            HubError, CheckpointError: the name could not be resolved.
            TokenizerError: the folder has no tokenizer that this class can read, or a file of it is damaged.
            ArgumentError: an option is unknown.
        """
        from loquent.hub.resolve import HUB_KEYWORDS

        hub: Any = {name: options.pop(name) for name in list(options) if name in HUB_KEYWORDS}
        for name in WITHOUT_EFFECT & options.keys():
            del options[name]
        # Which class reads the folder is settled: nothing of the folder's code is asked for.
        options.pop("trust_remote_code", None)
        return cls.from_stored(open_folder(pretrained_model_name_or_path, **hub), *files, **options)

    @classmethod
    def from_stored(cls: type[_Self], stored: StoredTokenizer, *files: str | Path, **options: Any) -> _Self:
        """The tokenizer of a folder that was opened; see `from_pretrained`."""
        found = {argument: stored.file(name) for argument, name in cls.vocab_files_names.items()}
        names = [name for name in cls.vocab_files_names if name != "tokenizer_file"]
        given: dict[str, Any] = {**{name: path for name, path in found.items() if path is not None}, **options}
        given.update(zip(names, files))
        if "tokenizer_file" not in given and not (names and all(name in given for name in names)):
            raise _nothing_to_read(cls.__name__, stored, cls.vocab_files_names)
        own = cls.defaults.keys() | {"added_tokens_decoder"}
        try:
            from_files = stored.options()
            unknown = {name: from_files.pop(name) for name in list(from_files) if name not in OPTIONS | own}
            checked_options(cls.__name__, from_files, own)
        except TokenizerError:
            raise
        except _NONSENSE as error:
            raise TokenizerError(
                f"{stored.folder / loading.CONFIG} or a file beside it cannot be used: {error}"
            ) from error
        return cls._made({"name_or_path": stored.name, **from_files, **given}, unknown)

    @classmethod
    def _made(cls: type[_Self], options: dict[str, Any], stored: dict[str, Any]) -> _Self:
        """An instance with these options; `stored` is what else the folder says, kept for saving."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        *,
        save_jinja_files: bool = True,
        repo_id: str | None = None,
        **hub: Any,
    ) -> tuple[str, ...]:
        """Write everything that `from_pretrained` reads; transformers reads it too.

        Args:
            save_directory: the folder, made if need be.
            legacy_format: True writes vocabulary files without tokenizer.json, False only tokenizer.json, None both
                where there are both.
            filename_prefix: put before each name, with a dash.
            push_to_hub: upload the files written then.
            save_jinja_files: chat templates as files of their own; False puts them into tokenizer_config.json.
            repo_id: where to; the folder's name if None.
            hub: `commit_message`, `private`, `token`, `revision`, `create_pr` of the upload.

        Returns:
            The paths of the files written.
        """
        if hub and not push_to_hub:
            raise ArgumentError(f"save_pretrained takes {sorted(hub)} only with push_to_hub=True.")
        folder = saving_folder(save_directory)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        config = self._saved_config()
        written = self._save_templates(folder, prefix, config) if save_jinja_files else []
        special = {role: _role_as_json(value) for role, value in self.special_tokens_map_extended.items()}
        written = [
            _write_json(folder / f"{prefix}{loading.CONFIG}", config),
            _write_json(folder / f"{prefix}{loading.SPECIAL_TOKENS}", special),
            *written,
        ]
        if legacy_format is not False:
            written += self._save_older_files(folder, filename_prefix, required=legacy_format is True)
        if legacy_format is not True:
            path = folder / f"{prefix}tokenizer.json"
            with self._lock, library_errors(f"{path} could not be written"):
                self._tokenizer.save(str(path))
            written.append(path)
        if push_to_hub:
            from loquent.hub.push import push_folder, repository_of

            push_folder(folder, repo_id or repository_of(save_directory), files=written, **hub)
        return tuple(str(path) for path in written)

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the vocabulary files of a named class: vocab.json and merges.txt, or its SentencePiece model."""
        folder = Path(save_directory).expanduser()
        return tuple(str(path) for path in self._save_older_files(folder, filename_prefix, required=True))

    def push_to_hub(self, repo_id: str, **hub: Any) -> Any:
        """Upload the tokenizer's files; `commit_message`, `private`, `token`, `revision`, `create_pr` as there."""
        import tempfile  # which few processes need, and every start would wait for

        from loquent.hub.push import push_folder

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo_id, **hub)

    def _saved_config(self) -> dict[str, Any]:
        config = {name: value for name, value in {**self._stored, **self.init_kwargs}.items() if value is not None}
        for name in ("name_or_path", "from_slow"):
            config.pop(name, None)
        config.update(
            {
                "model_max_length": self.model_max_length,
                "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
                "padding_side": self.padding_side,
                "truncation_side": self.truncation_side,
                **self.special_tokens_map,
                "extra_special_tokens": dict(self.extra_special_tokens),
                "added_tokens_decoder": {
                    str(index): describe(token) for index, token in sorted(self.added_tokens_decoder.items())
                },
            }
        )
        config.pop("chat_template", None)
        if isinstance(self.chat_template, str):
            config["chat_template"] = self.chat_template
        elif self.chat_template:
            config["chat_template"] = [
                {"name": name, "template": template} for name, template in self.chat_template.items()
            ]
        if self.saved_class_name != type(self).__name__:
            # Whoever reads this as a more general class must still know what the model takes.
            config["model_input_names"] = list(self.model_input_names)
        config["tokenizer_class"] = self.saved_class_name
        saved: dict[str, Any] = as_json(config)
        return saved

    def _save_templates(self, folder: Path, prefix: str, config: dict[str, Any]) -> list[Path]:
        """The chat templates as files, taken out of the config."""
        config.pop("chat_template", None)
        template = self.chat_template
        named = {"default": template} if isinstance(template, str) else template or {}
        written = []
        for name, text in named.items():
            path = folder / f"{prefix}{loading.TEMPLATE}"
            if name != "default":
                if not name or Path(name).name != name or name.startswith("."):
                    raise ArgumentError(f"chat_template: {name!r} cannot be the name of a file.")
                path = folder / f"{prefix}{loading.TEMPLATES}" / f"{name}.jinja"
                path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
        return written

    def _save_older_files(self, folder: Path, filename_prefix: str | None, required: bool) -> list[Path]:
        """The vocabulary files that older programs read, where the tokenizer has such a form."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        name = self.vocab_files_names.get("vocab_file", "")
        if name == "vocab.json":
            with library_errors(f"The vocabulary could not be written to {folder}"):
                written = [Path(path) for path in self._tokenizer.model.save(str(folder), filename_prefix)]
        elif name and self._vocab_files.get("vocab_file", Path()).is_file():
            written = [folder / f"{prefix}{name}"]
            if not written[0].exists() or not written[0].samefile(self._vocab_files["vocab_file"]):
                import shutil  # which few processes need, and every start would wait for

                shutil.copyfile(self._vocab_files["vocab_file"], written[0])
        elif required:
            raise ArgumentError(
                f"legacy_format=True: {type(self).__name__} was not made from vocabulary files, and tokenizer.json "
                "is its only form."
            )
        else:
            return []
        beyond = {token: index for token, index in self.added_tokens_encoder.items() if index >= self.vocab_size}
        if beyond:
            written.append(_write_json(folder / f"{prefix}{loading.ADDED_TOKENS}", beyond))
        return written


def _nothing_to_read(class_name: str, stored: StoredTokenizer, wanted: Mapping[str, str]) -> TokenizerError:
    older = " and ".join(name for argument, name in wanted.items() if argument != "tokenizer_file")
    looked = f"tokenizer.json, or {older}" if older else "tokenizer.json"
    there = sorted(path.name for path in stored.folder.iterdir())
    held = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "") if there else "nothing"
    return TokenizerError(
        f"{stored.name!r} has no tokenizer that {class_name} can read. Looked in {stored.folder} for {looked}; it "
        f"holds {held}. Copy the tokenizer's files there from where the model comes from, or pass the name of the "
        "repository."
    )


def _role_as_json(value: Any) -> Any:
    """A special token as special_tokens_map.json has it: without the flag that is always set there."""
    if isinstance(value, list):
        return [_role_as_json(one) for one in value]
    if isinstance(value, str):
        return value
    return {name: flag for name, flag in describe(value).items() if name != "special"}


def _write_json(path: Path, value: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
