"""The sizes a model can have: bounds that catch damaged or hostile configs before any memory is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loquent.errors import ConfigError

# Far above every model there is, and low enough that lists and tables of this length are harmless to build.
_LARGEST = {
    "vocab_size": 2**26,
    "hidden_size": 2**20,
    "intermediate_size": 2**24,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "head_dim": 2**16,
    "max_position_embeddings": 2**40,
    "num_labels": 2**20,
}


def check_sizes(owner: str, values: Mapping[str, Any], attribute_map: Mapping[str, str]) -> None:
    """Refuses a config whose sizes no model can have.

    Args:
        owner: the config class, for the message.
        values: the config's fields under its own names.
        attribute_map: the common name of a size -> the config's own.

    Raises:
        ConfigError: a size is not positive, or absurdly large.
    """
    for common, largest in _LARGEST.items():
        name = attribute_map.get(common, common)
        value = values.get(name)
        if isinstance(value, int) and not 1 <= value <= largest:
            raise ConfigError(f"{owner}: {name}={value} is not a size that a model can have (1 to {largest:,}).")
