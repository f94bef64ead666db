"""What every config can do with itself as JSON: print, compare, write and push; knows no field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError, ConfigError
from loquent.hub.files import write_text
from loquent.hub.push import push_folder


class JsonFile:
    """A mix-in for configs that are one JSON object in a model's folder.

    Subclasses define `to_dict`, `to_diff_dict` and `_save`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Every field and its value."""
        raise NotImplementedError

    def to_diff_dict(self) -> dict[str, Any]:
        """The fields that are saved."""
        raise NotImplementedError

    def _save(self, folder: Path, file_name: str | None = None) -> None:
        raise NotImplementedError

    def to_json_string(self, use_diff: bool = True) -> str:
        """The fields as JSON with sorted keys; only those that are saved, or all of them with `use_diff=False`.

        Raises:
            ConfigError: a field holds something that JSON cannot.
        """
        return self._as_json(self.to_diff_dict() if use_diff else self.to_dict())

    def _as_json(self, fields: dict[str, Any]) -> str:
        # Keys of one mapping may mix numbers and names, which Python would not sort.
        return json.dumps(_with_string_keys(fields, type(self).__name__), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Writes `to_json_string()` to a file, whole or not at all."""
        write_text(Path(json_file_path), self.to_json_string(use_diff))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config_file_name: str | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Uploads the config, as its usual file or `config_file_name`, to `repo_id`, a repository made if need be.

        Returns:
            The commit's address.

        Raises:
            HubError: the hub refused or could not be reached.
        """
        import tempfile  # which few processes need, and every start would wait for

        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), config_file_name)
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, JsonFile) and other.to_dict() == self.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can change, so it cannot be a key


def saving_folder(save_directory: str | os.PathLike[str]) -> Path:
    """The folder to save in, made if need be.

    Raises:
        ArgumentError: there is a file of that name, or the folder cannot be made.
    """
    folder = Path(save_directory).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"save_directory={str(save_directory)!r} is a file. Pass a folder, or a new name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            f"save_directory={str(save_directory)!r} cannot be made: {error.strerror or error}. Name a folder where "
            "you may write."
        ) from error
    return folder


def _with_string_keys(value: Any, owner: str) -> Any:
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else json.dumps(key): _with_string_keys(item, owner)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_string_keys(item, owner) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{owner} holds {value!r} of type {type(value).__name__}, which cannot be saved as JSON.")
