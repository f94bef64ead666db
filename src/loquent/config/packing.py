"""What a config says of how the weights are stored: plainly, packed by Loquent, or quantized by somebody else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from loquent.errors import CheckpointError

FIELD = "quantization_config"
"""The field of config.json; other libraries look there too, and refuse a method that they do not know."""

METHOD = "loquent"
VERSION = 1
PRECISIONS = ("float32", "bfloat16", "float16", "int8", "int4")
"""How weights may be held, in the order of their size."""


def packing(precision: str) -> dict[str, Any]:
    """What the field holds in the config of a packed folder."""
    return {"quant_method": METHOD, "precision": precision, "version": VERSION}


def packed_precision(fields: Mapping[str, Any], name: str | os.PathLike[str]) -> str | None:
    """The precision of a packed folder; None for a folder with plain weights.

    Args:
        fields: the fields of config.json.
        name: what the caller calls the folder.

    Raises:
        CheckpointError: the weights are quantized in another library's way, or packed by a newer version.
    """
    entry = fields.get(FIELD)
    if entry is None:
        return None
    where = f"The config of {os.fspath(name)!r}"
    method = entry.get("quant_method") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or method != METHOD:
        raise CheckpointError(
            f"{where} has {FIELD} with quant_method={method!r}: its weights are quantized in a way that Loquent does "
            f"not read. Load the model that it was made from; `loquent quantize` makes int8 or int4 of that."
        )
    version, precision = entry.get("version"), entry.get("precision")
    if version != VERSION:
        raise CheckpointError(
            f"{where} says that its weights are packed in format {version!r}, and this Loquent reads {VERSION}. "
            "Upgrade Loquent, or run `loquent quantize` on the model that it was made from."
        )
    if precision not in PRECISIONS:
        raise CheckpointError(
            f"{where} says precision={precision!r}, which is none of {', '.join(PRECISIONS)}. It is damaged; run "
            "`loquent quantize` on the model that it was made from."
        )
    return str(precision)
