"""How much memory this process can still have on the host: the machine's, or its container's; takes none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("sys/fs/cgroup")


def free_host_memory(root: Path = Path("/")) -> int | None:
    """Bytes that are available to new use, memory that caches of files give back counted; None: nothing says.

    It is the least of what the machine has available and what each control group that the process is in leaves (a
    container's limit, of cgroup v1 or v2, less what it uses).

    Args:
        root: where `proc` and `sys` are.
    """
    left = [_of_machine(root), *(_of_group(folder) for folder in _groups(root))]
    return min((each for each in left if each is not None), default=None)


def _of_machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # no Linux
        return None


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that may limit the process's memory, and of those that they are in."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / _GROUPS / ("memory" if controllers else "")
        # A container may see its own group as the top, under the name that it has outside.
        parts = Path(path.lstrip("/")).parts
        for count in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:count])


def _of_group(folder: Path) -> int | None:
    """What a group leaves; None: it has no limit, or is not there."""
    for limit, usage, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            statistics = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
            return max(0, most - max(0, used - int(statistics.get(idle, 0))))
    return None


def _number(path: Path) -> int | None:
    [text] = _lines(path) or [""]
    return int(text) if text.isdigit() else None  # "max" is none


def _lines(path: Path) -> list[str]:
    """The lines of a file; none where there is no such file, or it may not be read."""
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []
