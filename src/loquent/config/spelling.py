"""The accepted spellings of the common fields (`torch_dtype`, `num_labels`) turned into the declared ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loquent.errors import ConfigError

_FLOATS = {"float64", "double", "float32", "float", "float16", "half", "bfloat16"}
_SMALL_FLOATS = {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}
_DTYPES = _FLOATS | _SMALL_FLOATS | {"auto", "int64", "int32", "int16", "int8", "uint8", "bool"}


def dtype_name(owner: str, value: Any) -> Any:
    """The name of a dtype ("bfloat16") from a string or a `torch.dtype`, without importing torch.

    Raises:
        ConfigError: no such dtype is known.
    """
    # torch.bfloat16 prints as "torch.bfloat16"; its type is torch.dtype.
    name = str(value) if type(value).__module__ == "torch" else value
    if not isinstance(name, str):
        return value
    name = name.removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(f"{owner}: dtype={value!r} is unknown. Use a name like 'float32', 'float16' or 'bfloat16'.")
    return name


def labels(owner: str, count: Any, id2label: Any) -> dict[str, Any]:
    """The label maps that `num_labels=count` stands for: those given beside it, or LABEL_0, LABEL_1, ...

    Raises:
        ConfigError: the count is no number of labels, or not that of the map beside it.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 2**20:
        raise ConfigError(f"{owner}: num_labels={count!r} is not a number of labels.")
    if isinstance(id2label, Mapping):
        if len(id2label) != count:
            raise ConfigError(
                f"{owner}: num_labels={count} contradicts id2label, which names {len(id2label)}. Pass one of them."
            )
        return {}
    return {
        "id2label": {index: f"LABEL_{index}" for index in range(count)},
        "label2id": {f"LABEL_{index}": index for index in range(count)},
    }


def contradiction(owner: str, name: str, value: Any, other: str, other_value: Any) -> ConfigError:
    """The error for two spellings of one field with different values."""
    return ConfigError(
        f"{owner}: {other}={other_value!r} contradicts {name}={value!r}; both name the same field. Keep one of them."
    )
