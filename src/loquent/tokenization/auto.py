"""Chooses the tokenizer class of a model's folder; the classes do the work, and the folder's code is never run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loquent.errors import ArgumentError, TokenizerError
from loquent.tokenization.loading import StoredTokenizer, open_folder
from loquent.tokenization.named import CLASSES, CLASSES_OF_MODELS
from loquent.tokenization.pretrained import WITHOUT_EFFECT
from loquent.tokenization.tokenizer import PreTrainedTokenizer


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(name)`: the tokenizer of a model, whichever class it is."""

    def __init__(self) -> None:
        raise ArgumentError("AutoTokenizer is made by AutoTokenizer.from_pretrained(name_or_path).")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *files: str | Path, **options: Any
    ) -> PreTrainedTokenizer:
        """The tokenizer of a folder or repository.

        The class is the one that tokenizer_config.json names, else config.json (`tokenizer_class`, `model_type`), else
        the generic one where there is a tokenizer.json.

        Args:
            pretrained_model_name_or_path: a folder, or the name of a repository "org/name".
            files: vocabulary files instead of the folder's.
            options: as in `PreTrainedTokenizer.from_pretrained`; `tokenizer_type` is a `model_type` to choose the class
                by; `config` a model's config that says it. `use_fast` has no effect. `trust_remote_code=True` is
                accepted, and refused for a folder that needs its own code.

        Raises:
            HubError, CheckpointError: the name could not be resolved.
            TokenizerError: the folder has no tokenizer that can be read without running its code.
        """
        from loquent.hub.resolve import HUB_KEYWORDS

        hub: Any = {name: options.pop(name) for name in list(options) if name in HUB_KEYWORDS}
        for name in WITHOUT_EFFECT & options.keys():
            del options[name]
        options.pop("trust_remote_code", None)
        kind, config = options.pop("tokenizer_type", None), options.pop("config", None)
        stored = open_folder(pretrained_model_name_or_path, **hub)
        model = {} if config is None else {"model_type": config.model_type, **vars(config)}
        chosen = _class_of_type(kind) if kind is not None else tokenizer_class(stored, model)
        tokenizer = chosen.from_stored(stored, *files, **options)
        stored_name = str(stored.config.get("tokenizer_class") or "")
        if chosen is PreTrainedTokenizer and stored_name and stored_name.removesuffix("Fast") not in CLASSES:
            tokenizer.saved_class_name = stored_name
        return tokenizer


def tokenizer_class(stored: StoredTokenizer, model: Mapping[str, Any] | None = None) -> type[PreTrainedTokenizer]:
    """The class that reads a folder; `model` is the model's config, read from the folder where it is not given.

    Raises:
        TokenizerError: only the folder's own code could, or nothing says which.
    """
    model = model or stored.json("config.json")
    name = stored.config.get("tokenizer_class") or model.get("tokenizer_class")
    if name:
        named = CLASSES.get(str(name).removesuffix("Fast"))
        if named is not None:
            return named
    _refuse_code(stored, model, name)
    # A class that is not known by name: what its model uses, or what its tokenizer.json says in full.
    of_model = CLASSES_OF_MODELS.get(str(model.get("model_type")))
    if stored.file("tokenizer.json") is not None:
        return of_model if of_model is not None and not name else PreTrainedTokenizer
    if of_model is not None:
        return of_model
    scheme = None if name else _class_of_merges(stored)
    if scheme is not None:
        return scheme
    raise TokenizerError(
        f"{stored.name!r} does not say which tokenizer it has"
        + (f" ({name} is not known here)" if name else "")
        + f". Looked in {stored.folder} for tokenizer.json, tokenizer_class in tokenizer_config.json and model_type in "
        f"config.json. Known classes: {sorted(CLASSES)}; use one of them directly, such as GPT2Tokenizer."
    )


def _class_of_merges(stored: StoredTokenizer) -> type[PreTrainedTokenizer] | None:
    """The scheme of a vocab.json and merges.txt that come alone, by how they write the space between words."""
    vocab = stored.json("vocab.json") if stored.file("merges.txt") is not None else {}
    if "Ġ" in vocab:
        return CLASSES["GPT2Tokenizer"]
    return CLASSES["OpenAIGPTTokenizer"] if any(token.endswith("</w>") for token in vocab) else None


def _class_of_type(kind: str) -> type[PreTrainedTokenizer]:
    if kind not in CLASSES_OF_MODELS:
        raise ArgumentError(f"tokenizer_type={kind!r} is not one of {sorted(CLASSES_OF_MODELS)}.")
    return CLASSES_OF_MODELS[kind]


def _refuse_code(stored: StoredTokenizer, model: Mapping[str, Any], name: object) -> None:
    """A folder that names a class in its own code cannot be read as its authors mean."""
    for source in (stored.config, model):
        mapped = source.get("auto_map")
        if isinstance(mapped, list) or (isinstance(mapped, Mapping) and "AutoTokenizer" in mapped):
            remedy = (
                "It has a tokenizer.json, which PreTrainedTokenizerFast.from_pretrained reads without that code."
                if stored.file("tokenizer.json") is not None
                else "Ask its authors for a tokenizer.json."
            )
            raise TokenizerError(
                f"{stored.name!r} has a tokenizer of its own making ({name}), in code that comes with it. Loquent "
                f"never runs code from a model's folder, with trust_remote_code=True neither. {remedy}"
            )
