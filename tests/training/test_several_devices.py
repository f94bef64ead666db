"""Two processes that share a step learn what one learns from the same packs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("several_devices.py")


def run(folder: Path, batch_size: int, *launcher: str) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", 4)
    both = run(tmp_path / "both", 2, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert both["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert both["evaluation"] == pytest.approx(alone["evaluation"], abs=1e-5)
    assert alone["losses"][-1] < alone["losses"][0]
    # One process speaks, and writes, for both.
    assert both["told"] == alone["told"]
    names = [sorted(path.name for path in (tmp_path / kind).iterdir()) for kind in ("alone", "both")]
    assert names[0] == names[1]
    assert "checkpoint-6" in names[0]
