"""Which options a tokenizer takes, from its caller and from tokenizer_config.json; it applies none of them."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from tokenizers import AddedToken

from loquent.errors import ArgumentError, hint
from loquent.tokenization.special_tokens import ADDITIONAL, ROLES

OPTIONS = frozenset(
    {
        *ROLES,
        ADDITIONAL,
        "add_bos_token",
        "add_eos_token",
        "add_prefix_space",
        "chat_template",
        "clean_up_tokenization_spaces",
        "errors",
        "extra_special_tokens",
        "from_slow",
        "legacy",
        "max_len",
        "model_input_names",
        "model_max_length",
        "name_or_path",
        "pad_token_type_id",
        "padding_side",
        "processor_class",
        "sp_model_kwargs",
        "spaces_between_special_tokens",
        "split_special_tokens",
        "truncation_side",
        "use_default_system_prompt",
        "verbose",
    }
)


# What an option must be, unless it is None.
_FLAGS = """add_bos_token add_eos_token add_prefix_space clean_up_tokenization_spaces from_slow legacy
split_special_tokens"""
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(_FLAGS.split(), (bool,)),
    "extra_ids": (int,),
    "extra_special_tokens": (dict, list),
    "max_len": (int, float),
    "model_input_names": (list, tuple),
    "model_max_length": (int, float),
    "pad_token_type_id": (int,),
}


def checked_options(class_name: str, options: Mapping[str, Any], own: Set[str]) -> dict[str, Any]:
    """The options with special tokens as tokens; `own` are the further ones that the class knows.

    Raises:
        ArgumentError: an option is unknown, or of the wrong type.
    """
    known = OPTIONS | own
    for name, value in options.items():
        if value is not None and not isinstance(value, _TYPES.get(name, (object,))):
            wanted = " or ".join(one.__name__ for one in _TYPES[name])
            raise ArgumentError(f"{name}={value!r} must be of type {wanted}.")
        if name not in known:
            remedy = hint(name, known)
            if name.endswith("_token"):
                remedy += f" For a role of its own, pass extra_special_tokens={{{name!r}: ...}}."
            raise ArgumentError(f"{class_name} has no option {name}={value!r}.{remedy}")
    if options.get("errors") not in (None, "replace"):
        raise ArgumentError(f'errors={options["errors"]!r}: bytes that are no text always decode to "replace".')
    checked = {name: as_tokens(value) for name, value in options.items()}
    if isinstance(checked.get("extra_special_tokens"), list):
        # transformers 5 calls the additional tokens so.
        checked[ADDITIONAL] = [*(checked.get(ADDITIONAL) or []), *checked.pop("extra_special_tokens")]
    if checked.get("max_len") is not None:
        checked.setdefault("model_max_length", checked.pop("max_len"))
    return checked


def special_tokens_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that give a role its token."""
    return {name: options[name] for name in (*ROLES, ADDITIONAL) if options.get(name) is not None}


def as_tokens(value: Any) -> Any:
    """JSON with AddedTokens where it describes them: {"__type": "AddedToken", "content": "<s>", ...}."""
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return as_token(value)
    if isinstance(value, list):
        return [as_tokens(one) for one in value]
    if isinstance(value, dict):
        return {name: as_tokens(one) for name, one in value.items()}
    return value


def as_token(described: Mapping[str, Any]) -> AddedToken:
    """The AddedToken that a JSON object describes.

    Raises:
        ArgumentError: its text is missing or its flags are not truth values.
    """
    flags = {
        name: described[name]
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
        if name in described
    }
    content = described.get("content")
    if not isinstance(content, str) or not all(isinstance(flag, bool) for flag in flags.values()):
        raise ArgumentError(f"{dict(described)!r} does not describe a token: it needs content and flags.")
    return AddedToken(content, **flags)


def as_json(value: Any) -> Any:
    """The inverse of `as_tokens`."""
    if isinstance(value, AddedToken):
        return {**describe(value), "__type": "AddedToken"}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        return {name: as_json(one) for name, one in value.items()}
    return value


def describe(token: AddedToken) -> dict[str, Any]:
    """A token's text and flags, as the files of a tokenizer write them."""
    return {
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": token.lstrip,
        "rstrip": token.rstrip,
        "normalized": token.normalized,
        "special": token.special,
    }
