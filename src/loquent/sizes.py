"""Sizes of memory and files as people write them: "5GB" and numbers of bytes; nothing is measured here."""

from __future__ import annotations

import re

from loquent.errors import ArgumentError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    unit: 1024**power for power, unit in enumerate(("KIB", "MIB", "GIB", "TIB"), 1)
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(size: int | str, argument: str) -> int:
    """A number of bytes from a number, or from such as "5GB" (decimal) or "500MiB" (binary).

    Args:
        size: what was given.
        argument: the name under which it was given, for the message.

    Raises:
        ArgumentError: it is neither, or not above 0.
    """
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    number = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else size
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ArgumentError(f'{argument}={size!r} is not a size. Pass a number of bytes, or such as "5GB" or "512MiB".')
    return number


def shown_size(size: int) -> str:
    """A number of bytes for people, such as "1.5 GiB"."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
