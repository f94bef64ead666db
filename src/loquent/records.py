"""Records: what calls return under the names of transformers, read by attribute, by key or by index; plain data.

The documentation page is https://huggingface.co/docs/transformers/main_classes/output.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields
from typing import Any


class Record(OrderedDict[str, Any]):
    """The base of the records; a subclass is a dataclass whose fields default to None.

    Fields that are None are no keys and have no index: `output[0]` is the first field that is there.
    """

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # the subclasses are dataclasses
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name not in self._names():
            return
        if value is not None:
            super().__setitem__(name, value)
        elif name in self:
            super().__delitem__(name)

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"{type(self).__name__} has fixed fields; {key!r} cannot be deleted")

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in self._names())

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(super(Record, self).__getitem__(name) for name in self._names() if name in self)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]  # type: ignore[arg-type]  # the subclasses are dataclasses
