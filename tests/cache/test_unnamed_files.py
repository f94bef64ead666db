"""Temporary files for pages: blocks that are there, and what is said where they cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loquent.cache import files
from loquent.errors import ArgumentError, CapacityError


@pytest.mark.parametrize("way", ["reserved", "not on this system", "not on this file system"])
def test_blocks_are_there_before_they_are_written(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "not on this system":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif way == "not on this file system":
        monkeypatch.setattr(os, "posix_fallocate", _fails(errno.EOPNOTSUPP), raising=False)
    with files.unnamed_file(str(tmp_path)) as file:
        files.reserve(file.fileno(), 0, 100, None)
        files.reserve(file.fileno(), 100, 3 << 20, None)
        found = os.fstat(file.fileno())
        assert found.st_size == 3 << 20
        assert found.st_blocks * 512 >= 3 << 20
        assert not any(file.read())


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with files.unnamed_file(str(tmp_path)) as file:
        files.reserve(file.fileno(), 0, 100, str(tmp_path))
        monkeypatch.setattr(os, "posix_fallocate", _fails(errno.ENOSPC), raising=False)
        with pytest.raises(CapacityError, match=r"offload_folder='/.*' has no room for 2 MiB more .*are free\. Free"):
            files.reserve(file.fileno(), 100, 100 + (2 << 20), str(tmp_path))
        assert os.fstat(file.fileno()).st_size == 100


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ArgumentError, match="offload_folder='/not/there' cannot hold keys and values"):
        files.unnamed_file("/not/there")


def _fails(number: int) -> Callable[..., None]:
    def fail(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    return fail
