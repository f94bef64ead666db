"""The special tokens of a tokenizer by their role, as attributes; it neither encodes nor decodes.

Roles: https://huggingface.co/docs/transformers/main_classes/tokenizer#transformers.SpecialTokensMixin
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast, overload

from tokenizers import AddedToken

from loquent.errors import ArgumentError

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDITIONAL = "additional_special_tokens"

Token: TypeAlias = "str | AddedToken"


class _Role:
    """`tokenizer.pad_token`: reads as a string, takes a string, an AddedToken or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> _Role: ...
    @overload
    def __get__(self, tokenizer: SpecialTokens, owner: type) -> str | None: ...
    def __get__(self, tokenizer: SpecialTokens | None, owner: type) -> str | _Role | None:
        if tokenizer is None:
            return self
        token = tokenizer._tokens_by_role.get(self.name)
        return None if token is None else str(token)

    def __set__(self, tokenizer: SpecialTokens, token: Token | None) -> None:
        tokenizer._tokens_by_role[self.name] = _checked(self.name, token)


class _RoleId:
    """`tokenizer.pad_token_id`: the id of a role's token, settable by id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> _RoleId: ...
    @overload
    def __get__(self, tokenizer: SpecialTokens, owner: type) -> int | None: ...
    def __get__(self, tokenizer: SpecialTokens | None, owner: type) -> int | _RoleId | None:
        if tokenizer is None:
            return self
        token = tokenizer._tokens_by_role.get(self.role)
        return None if token is None else tokenizer._id_of(str(token))

    def __set__(self, tokenizer: SpecialTokens, index: int | None) -> None:
        token = None if index is None else tokenizer._token_of(index)
        if index is not None and token is None:
            raise ArgumentError(f"{self.role}_id={index!r} is not an id of this tokenizer's vocabulary.")
        tokenizer._tokens_by_role[self.role] = token


class SpecialTokens:
    """Which tokens begin, end, pad, ... a sequence: `eos_token`, `eos_token_id`, and so on.

    A tokenizer may name further roles (`extra_special_tokens={"image_token": "<image>"}`); each then is an attribute
    too, with its `_id`.
    """

    bos_token = _Role()
    eos_token = _Role()
    unk_token = _Role()
    sep_token = _Role()
    pad_token = _Role()
    cls_token = _Role()
    mask_token = _Role()
    bos_token_id = _RoleId()
    eos_token_id = _RoleId()
    unk_token_id = _RoleId()
    sep_token_id = _RoleId()
    pad_token_id = _RoleId()
    cls_token_id = _RoleId()
    mask_token_id = _RoleId()

    pad_token_type_id: int = 0

    def __init__(self, tokens: Mapping[str, Any], extra: Mapping[str, Token]) -> None:
        self._tokens_by_role: dict[str, Token | None] = {role: _checked(role, tokens.get(role)) for role in ROLES}
        self._additional: list[Token] = _checked_list(tokens.get(ADDITIONAL) or [])
        self.extra_special_tokens: dict[str, Token] = {}
        self._name_roles(extra)

    def _name_roles(self, extra: Mapping[str, Token]) -> None:
        for role, token in extra.items():
            self.extra_special_tokens[role] = token
            self._tokens_by_role[role] = _checked(role, token)

    # What a tokenizer supplies.
    def _id_of(self, token: str) -> int | None:
        raise NotImplementedError

    def _token_of(self, index: int) -> str | None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        roles: dict[str, Token | None] = self.__dict__.get("_tokens_by_role", {})
        if name in roles:
            token = roles[name]
            return None if token is None else str(token)
        if name.endswith("_id") and name.removesuffix("_id") in roles:
            token = roles[name.removesuffix("_id")]
            return None if token is None else self._id_of(str(token))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("extra_special_tokens", {}):
            self._name_roles({name: value})
        else:
            super().__setattr__(name, value)

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role."""
        return [str(token) for token in self._additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Iterable[Token] | None) -> None:
        self._additional = _checked_list(tokens or [])

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of the special tokens without a role."""
        return [cast(int, self._id_of(token)) for token in self.additional_special_tokens]

    @additional_special_tokens_ids.setter
    def additional_special_tokens_ids(self, ids: Iterable[int]) -> None:
        self._additional = _checked_list([self._token_of(index) for index in ids])

    @property
    def special_tokens_map_extended(self) -> dict[str, Token | list[Token]]:
        """Each role that is set with its token as it was given: a string or an AddedToken."""
        named: dict[str, Token | list[Token]] = {}
        for role, token in self._tokens_by_role.items():
            if token is not None and role in ROLES:
                named[role] = token
        if self._additional:
            named[ADDITIONAL] = list(self._additional)
        named.update({role: token for role, token in self._tokens_by_role.items() if token and role not in ROLES})
        return named

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """Each role that is set with its token as a string."""
        return {
            role: [str(one) for one in token] if isinstance(token, list) else str(token)
            for role, token in self.special_tokens_map_extended.items()
        }

    @property
    def all_special_tokens_extended(self) -> list[Token]:
        """Every special token once, in the order of the roles, as it was given."""
        unique: dict[str, Token] = {}
        for token in self.special_tokens_map_extended.values():
            for one in token if isinstance(token, list) else [token]:
                unique.setdefault(str(one), one)
        return list(unique.values())

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, in the order of the roles."""
        return [str(token) for token in self.all_special_tokens_extended]

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [cast(int, self._id_of(token)) for token in self.all_special_tokens]


def _checked(role: str, token: object) -> Token | None:
    if token is None or isinstance(token, str | AddedToken):
        return token
    raise ArgumentError(f"{role}={token!r} must be a string, an AddedToken or None. To set it by id, use {role}_id.")


def _checked_list(tokens: object) -> list[Token]:
    if isinstance(tokens, list | tuple) and all(isinstance(token, str | AddedToken) for token in tokens):
        return list(tokens)
    raise ArgumentError(f"{ADDITIONAL}={tokens!r} must be a list of strings or AddedTokens.")
