"""Temporary files that pages lie in, and what is said where a disk has no room for them; maps nothing."""

from __future__ import annotations

import errno
import os
from typing import IO

from loquent.errors import ArgumentError, CapacityError
from loquent.sizes import shown_size

_ZEROS = 1 << 20  # bytes that are written at once


def unnamed_file(folder: str | None) -> IO[bytes]:
    """A new file that nobody else can open, and that is gone with the last process that has it.

    Args:
        folder: where; None: the system's folder for temporary files.

    Raises:
        ArgumentError: no file can be made there.
    """
    try:
        import tempfile  # which few processes need, and every start would wait for

        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError as error:
        raise ArgumentError(
            f"offload_folder={folder!r} cannot hold keys and values ({error.strerror}). Name a folder that is there "
            "and can be written to."
        ) from error


def reserve(file: int, start: int, stop: int, folder: str | None) -> None:
    """Have blocks for bytes `start` to `stop` of an open file, so that writing to them cannot fail.

    Raises:
        CapacityError: the disk has no room; the file is as long as it was.
    """
    try:
        _allocate(file, start, stop)
    except OSError as error:
        os.ftruncate(file, start)
        import shutil  # which few processes need, and every start would wait for

        left = shown_size(shutil.disk_usage(file).free)
        lack = f"no room for {shown_size(stop - start)} more ({error.strerror}): {left} are free"
        raise full_disk(folder, lack) from None


def full_disk(folder: str | None, lack: str) -> CapacityError:
    """The error for a disk that has "no room for 1 GiB more ...: 4 KiB are free"."""
    import tempfile  # which few processes need, and every start would wait for

    where = tempfile.gettempdir() if folder is None else folder
    return CapacityError(
        f"offload_folder={where!r} has {lack}. Free some, name a folder on a larger disk, or ask for a shorter context."
    )


def _allocate(file: int, start: int, stop: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        _write_zeros(file, start, stop)
        return
    try:
        os.posix_fallocate(file, start, stop - start)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        _write_zeros(file, start, stop)  # the file system reserves nothing


def _write_zeros(file: int, start: int, stop: int) -> None:
    zeros = bytes(min(_ZEROS, stop - start))
    while start < stop:
        start += os.pwrite(file, zeros[: stop - start], start)
