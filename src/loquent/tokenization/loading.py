"""Reads what a model's folder says about its tokenizer, from any of the file formats; it builds no tokenizer.

Files: tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json, vocab.json, merges.txt,
tokenizer.model or spiece.model, chat_template.jinja, chat_template.json, additional_chat_templates/*.jinja, and
config.json for the kind of model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken

from loquent.errors import TokenizerError
from loquent.tokenization.options import as_token, as_tokens
from loquent.tokenization.special_tokens import ADDITIONAL, ROLES

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loquent.hub.resolve import HubKeywords

CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
TEMPLATE = "chat_template.jinja"
LEGACY_TEMPLATE = "chat_template.json"
TEMPLATES = "additional_chat_templates"
# A vocabulary may go by either name.
SENTENCEPIECE = ("tokenizer.model", "spiece.model")
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", *SENTENCEPIECE)
PATTERNS = (
    *VOCABULARY,
    CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    TEMPLATE,
    LEGACY_TEMPLATE,
    f"{TEMPLATES}/*.jinja",
    "config.json",
)
_MAX_JSON_BYTES = 64 << 20
_MAX_TEMPLATE_BYTES = 4 << 20
_HEAD = 1 << 18
_ADDED = re.compile(r'"added_tokens"\s*:\s*')
# Fields of tokenizer_config.json that are about the saving program.
_ABOUT_SAVING = frozenset(
    {
        "tokenizer_file",
        "special_tokens_map_file",
        "backend",
        "is_local",
        "local_files_only",
        "name_or_path",
        "init_inputs",
        "device_map",
        "transformers_version",
        "vocab_file",
        "merges_file",
        "vocab",
        "merges",
        "tokenizer_class",
        "auto_map",
        "trust_remote_code",
    }
)


@dataclass(frozen=True)
class StoredTokenizer:
    """A folder with a tokenizer in it; `name` is what the caller asked for."""

    name: str
    folder: Path
    config: Mapping[str, Any]

    def file(self, name: str) -> Path | None:
        """A file of the folder, if it is there; either name of a SentencePiece model finds it."""
        names = SENTENCEPIECE if name in SENTENCEPIECE else (name,)
        found = [self.folder / one for one in dict.fromkeys((name, *names))]
        return next((path for path in found if path.is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty where there is no such file."""
        path = self.file(name)
        return {} if path is None else read_json(path)

    def options(self) -> dict[str, Any]:
        """The options that the files give, with tokens as AddedTokens where a file describes them so."""
        options = {name: as_tokens(value) for name, value in self.config.items() if name not in _ABOUT_SAVING}
        described = options.pop("added_tokens_decoder", None)
        if described is None:
            added = self._older_tokens(options)
        else:
            added = _added_tokens(described, self.folder)
        by_content = {token.content: token for token in added.values()}
        for role in ROLES:
            if isinstance(options.get(role), dict):
                options[role] = as_token({**options[role], "special": True})
            options[role] = by_content.get(str(options.get(role)), options.get(role))
        options = {name: value for name, value in options.items() if value is not None}
        options["added_tokens_decoder"] = added
        templates = self.templates()
        if templates:
            options["chat_template"] = templates["default"] if list(templates) == ["default"] else templates
        return options

    def templates(self) -> dict[str, str]:
        """The chat templates that have files of their own; they come before those in the config."""
        found: dict[str, str] = {}
        main, older = self.file(TEMPLATE), self.json(LEGACY_TEMPLATE).get("chat_template")
        if main is not None:
            found["default"] = _text(main)
        elif isinstance(older, str):
            found["default"] = older
        folder = self.folder / TEMPLATES
        for path in sorted(folder.glob("*.jinja")) if folder.is_dir() else []:
            if path.is_file():
                found[path.stem] = _text(path)
        return found

    def _older_tokens(self, options: dict[str, Any]) -> dict[int, AddedToken]:
        """The tokens of folders without `added_tokens_decoder`: from three files. Fills in the roles they give."""
        for role, value in self.json(SPECIAL_TOKENS).items():
            if role == ADDITIONAL and isinstance(value, list):
                tokens = [as_token({**one, "special": True}) if isinstance(one, dict) else one for one in value]
                given = [str(one) for one in options.get(role) or []]
                options[role] = [*(options.get(role) or []), *(one for one in tokens if str(one) not in given)]
            else:
                options[role] = as_token({**value, "special": True}) if isinstance(value, dict) else value
        special = {str(options[role]) for role in ROLES if options.get(role)}
        special |= {str(one) for one in options.get(ADDITIONAL) or []}
        added = {
            int(index): AddedToken(text, normalized=text not in special, special=text in special)
            for text, index in self.json(ADDED_TOKENS).items()
        }
        for described in self._described_tokens():
            added[int(described["id"])] = as_token(described)
        return added

    def _described_tokens(self) -> list[dict[str, Any]]:
        """The `added_tokens` of tokenizer.json."""
        path = self.file("tokenizer.json")
        if path is None:
            return []
        # They stand before the vocabulary, which has thousands of times their size and is `tokenizers`' to read.
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD)
        try:
            start = _ADDED.search(head)
            found = json.JSONDecoder().raw_decode(head, start.end())[0] if start else None
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(one, dict) and "content" in one for one in found):
            return found
        listed: list[dict[str, Any]] = read_json(path).get("added_tokens", [])
        return listed


def open_folder(name_or_path: str | os.PathLike[str], **hub: Unpack[HubKeywords]) -> StoredTokenizer:
    """The folder of a model, downloaded if need be, with the tokenizer's files in it.

    Raises:
        CheckpointError, HubError: the name could not be resolved.
        TokenizerError: tokenizer_config.json is damaged.
    """
    from loquent.hub.resolve import resolve_folder

    folder = resolve_folder(name_or_path, PATTERNS, **hub)
    config = folder / CONFIG
    return StoredTokenizer(str(name_or_path), folder, read_json(config) if config.is_file() else {})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        TokenizerError: the file is damaged, too large, or holds something else.
    """
    limit = _MAX_JSON_BYTES * (8 if path.name == "tokenizer.json" else 1)
    if path.stat().st_size > limit:
        raise TokenizerError(f"{path} is larger than {limit >> 20} MiB, which no such file is.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path} is not valid JSON ({error}). Download it again; a file of a few hundred bytes is often a Git LFS "
            "pointer in place of the file."
        ) from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds a {type(value).__name__} where a JSON object was expected.")
    return value


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_TEMPLATE_BYTES:
        raise TokenizerError(f"{path} is larger than {_MAX_TEMPLATE_BYTES >> 20} MiB, which no chat template is.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 text: {error}") from error


def _added_tokens(described: Any, folder: Path) -> dict[int, AddedToken]:
    try:
        return {int(index): one if isinstance(one, AddedToken) else as_token(one) for index, one in described.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TokenizerError(f"{folder / CONFIG}: added_tokens_decoder is not readable: {error}") from error
