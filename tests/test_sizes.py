"""Sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from loquent import ArgumentError
from loquent.sizes import parse_size


def test_numbers_and_units() -> None:
    sizes = (7, "5GB", "1.5 kb", "2MiB", "12", " 3 TiB ", "0.5KiB")
    assert [parse_size(size, "kv_memory") for size in sizes] == [7, 5 * 10**9, 1500, 2**21, 12, 3 * 2**40, 512]


@pytest.mark.parametrize("size", [0, -1, True, "", "GB", "5 parsecs", "-1GB", "0.1", 1.5, None])
def test_what_is_no_size_is_named(size: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"^kv_memory={size!r} is not a size. Pass a number of bytes"):
        parse_size(size, "kv_memory")
