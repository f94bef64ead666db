"""What every test shares: the real data beside the checkout, and a world without a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests never reach a hub: a stand-in on loopback is addressed explicitly where one is meant.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real weights, tokenizers and text; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real data is not beside this checkout ({SHARED_DATA})")
    return SHARED_DATA
