"""Brings rows that were encoded before to one length; what to fill them with is told by the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loquent.errors import ArgumentError
from loquent.tokenization.arguments import Fit, PaddingStrategy
from loquent.tokenization.batch import BatchEncoding


def pad_rows(
    encoded: Any,
    chosen: Fit,
    side: str,
    filling: Mapping[str, int | None],
    with_mask: bool,
    tensor_type: str | None,
) -> BatchEncoding:
    """Pad a mapping of rows (or of one row), or a list of such mappings.

    Args:
        encoded: named rows; lists, numpy arrays or torch tensors.
        chosen: how far.
        side: "right" or "left".
        filling: what each named column is filled with, the first being the one that sets the lengths.
        with_mask: add an `attention_mask` where there is none.
        tensor_type: what the result is made of; None for what came.
    """
    columns, came_as = _columns(encoded)
    main = next(iter(filling))
    if main not in columns:
        raise ArgumentError(f"encoded_inputs must hold {main!r}; it holds {sorted(columns)}.")
    rows = columns[main]
    if not rows:
        return BatchEncoding({**columns, "attention_mask": []} if with_mask else columns)
    single = not isinstance(rows[0], list)
    if single:
        columns = {name: [value] for name, value in columns.items()}
    _check_sizes(columns, len(columns[main]))
    lengths = [len(row) for row in columns[main]]
    if with_mask and "attention_mask" not in columns:
        columns["attention_mask"] = [[1] * length for length in lengths]
    if chosen.padding is not PaddingStrategy.DO_NOT_PAD:
        target = _target(lengths, chosen)
        for name in filling.keys() & columns.keys():
            columns[name] = [_filled(row, target, filling[name], side) for row in columns[name]]
    if single:
        columns = {name: value[0] for name, value in columns.items()}
    return BatchEncoding(columns, tensor_type=tensor_type or came_as)


def _target(lengths: Sequence[int], chosen: Fit) -> int:
    longest = chosen.padding is PaddingStrategy.LONGEST or chosen.max_length is None
    target = max(lengths) if longest else int(chosen.max_length or 0)
    return -(-target // chosen.multiple) * chosen.multiple if chosen.multiple else target


def _filled(row: list[Any], target: int, value: int | None, side: str) -> list[Any]:
    missing = [value] * (target - len(row))
    return missing + row if side == "left" else row + missing


def _columns(encoded: Any) -> tuple[dict[str, Any], str | None]:
    """Named columns of plain lists, and the library that the values came from."""
    if isinstance(encoded, list | tuple) and encoded and all(isinstance(row, Mapping) for row in encoded):
        encoded = {name: [row[name] for row in encoded] for name in encoded[0]}
    if not isinstance(encoded, Mapping):
        raise ArgumentError(
            f"encoded_inputs={type(encoded).__name__} must be an encoding, a dictionary of lists, or a list of those."
        )
    came_as: str | None = None
    columns: dict[str, Any] = {}
    for name, value in encoded.items():
        columns[name], library = plain(value)
        came_as = came_as or library
    return columns, came_as


def plain(value: Any) -> tuple[Any, str | None]:
    """Arrays and tensors as lists, however they are nested in lists, and the library they came from."""
    if hasattr(value, "tolist"):
        return value.tolist(), "np" if type(value).__module__.partition(".")[0] == "numpy" else "pt"
    if isinstance(value, list | tuple) and any(hasattr(row, "tolist") for row in value):
        rows = [plain(row) for row in value]
        return [row for row, _ in rows], rows[0][1]
    return (list(value) if isinstance(value, tuple) else value), None


def _check_sizes(columns: Mapping[str, Any], rows: int) -> None:
    for name, value in columns.items():
        if len(value) != rows:
            raise ArgumentError(f"encoded_inputs[{name!r}] has {len(value)} rows where input_ids has {rows}.")
