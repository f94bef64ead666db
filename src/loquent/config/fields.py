"""The declared fields of a config class: names, defaults, types and order, read once from its annotations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, get_type_hints

from loquent.config.field_types import MismatchError, coerce, describe
from loquent.errors import ConfigError, LoquentError


@dataclass
class FieldTable:
    """What a config class declares.

    own: the names that the family itself declares, in the order of its positional arguments; always saved.
    defaults: every field's default, the shared ones of the base classes included.
    error: what a value of the wrong type raises.
    """

    owner: type
    own: tuple[str, ...]
    defaults: dict[str, Any]
    error: type[LoquentError] = ConfigError
    _hints: dict[str, Any] = field(default_factory=dict)

    def coerce(self, name: str, value: Any) -> Any:
        """`value` as the field's type wants it.

        Raises:
            LoquentError: it is of another type; an `error` that names the field, the value and the type.
        """
        if not self._hints:
            # Not at class creation: resolving every family's annotations would slow the import down.
            self._hints.update(get_type_hints(self.owner))
        try:
            return coerce(value, self._hints[name])
        except MismatchError:
            kind = type(value).__name__ if not isinstance(value, float) or isfinite(value) else "infinite float"
            raise self.error(
                f"{self.owner.__name__}: {name}={_shortened(value)} is of type {kind}, "
                f"but {describe(self._hints[name])} is expected."
            ) from None


def field_table(cls: type, *, shared: bool, aliases: frozenset[str]) -> FieldTable:
    """The fields of `cls`, inherited ones included; `shared` classes add none to the positional order.

    Names in `aliases` are other spellings of a field in this class, even where a base class declares them.

    Raises:
        TypeError: a field has no default.
    """
    parents = [base.__dict__["_table"] for base in cls.__mro__[1:] if "_table" in base.__dict__]
    declared = [name for name, hint in inspect.get_annotations(cls).items() if _is_field(name, hint)]
    for name in declared:
        if name not in cls.__dict__:
            raise TypeError(f"{cls.__name__}.{name} needs a default")
    defaults: dict[str, Any] = {}
    for parent in reversed(parents):
        defaults.update(parent.defaults)
    defaults.update({name: cls.__dict__[name] for name in [*declared, *defaults] if name in cls.__dict__})
    inherited = [name for parent in parents for name in parent.own]
    own = dict.fromkeys(inherited if shared else [*declared, *inherited])
    return FieldTable(
        owner=cls,
        own=tuple(name for name in own if name not in aliases),
        defaults={name: value for name, value in defaults.items() if name not in aliases},
    )


def _is_field(name: str, hint: Any) -> bool:
    return not name.startswith("_") and not str(hint).startswith(("ClassVar", "typing.ClassVar"))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
