"""What a process holds in memory, by the kernel's own account (Linux)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class Resident(NamedTuple):
    """Bytes of this process now."""

    own: int  # anonymous memory, which nothing but a swap could take
    mapped: int  # of mapped files, which the kernel may write out and drop


def resident() -> Resident:
    """Read from /proc.

    Raises:
        RuntimeError: the kernel does not tell.
    """
    status = Path("/proc/self/status").read_text()
    parts = {name: int(kib) * 1024 for name, kib in re.findall(r"^Rss(\w+):\s+(\d+) kB", status, re.MULTILINE)}
    if "Anon" not in parts:
        raise RuntimeError("this kernel does not report RssAnon; the benchmark needs Linux 4.5 or newer")
    return Resident(parts["Anon"], parts["File"] + parts["Shmem"])
