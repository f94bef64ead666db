"""Memory that is left: of the machine, and within the groups that limit a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from loquent.engine.host_memory import free_host_memory

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MACHINE = {"proc/meminfo": f"MemTotal:       {900 * 1024} kB\nMemFree: 5 kB\nMemAvailable:   {500 * 1024} kB\n"}


def test_the_machines_memory_where_nothing_limits_it(tmp_path: Path) -> None:
    write(tmp_path, MACHINE)
    assert free_host_memory(tmp_path) == 500 * MIB
    groups = {
        "proc/self/cgroup": "0::/user.slice/app\n",
        "sys/fs/cgroup/user.slice/app/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/app/memory.current": "77\n",
        "sys/fs/cgroup/user.slice/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/memory.current": "99\n",
    }
    write(tmp_path, groups)
    assert free_host_memory(tmp_path) == 500 * MIB


@pytest.mark.parametrize("at", ["user.slice/app", "user.slice", "."])
def test_a_group_leaves_its_limit_less_what_is_used_for_good(tmp_path: Path, at: str) -> None:
    folder = f"sys/fs/cgroup/{at}"
    limited = {
        "proc/self/cgroup": "0::/user.slice/app\n",
        f"{folder}/memory.max": f"{300 * MIB}\n",
        f"{folder}/memory.current": f"{120 * MIB}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {20 * MIB}\nactive_file 7\n",
    }
    write(tmp_path, {**MACHINE, **limited})
    assert free_host_memory(tmp_path) == 200 * MIB


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    container = {
        "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/system.slice\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{90 * MIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{60 * MIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {10 * MIB}\n",
        "sys/fs/cgroup/cpu/docker/abc/memory.limit_in_bytes": "1\n",
    }
    write(tmp_path, {**MACHINE, **container})
    assert free_host_memory(tmp_path) == 40 * MIB
    unlimited = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    write(tmp_path, unlimited)
    assert free_host_memory(tmp_path) == 500 * MIB


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    full = {"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "130\n"}
    write(tmp_path, {**MACHINE, "proc/self/cgroup": "0::/\n", **full})
    assert free_host_memory(tmp_path) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is available")
def test_this_machine_has_some() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < (free_host_memory() or 0) < total
    assert (free_host_memory(Path("/nowhere")) or 0) < total
