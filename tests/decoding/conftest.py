"""Decoding's tests share their models."""

from __future__ import annotations

from typing import Any

import pytest

from decoding.pairs import MakePair, random_llama


@pytest.fixture(scope="session")
def llama_pair(tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """A pair of equal models for a seed, made once."""
    known: dict[int, tuple[Any, Any]] = {}

    def make(seed: int) -> tuple[Any, Any]:
        if seed not in known:
            known[seed] = random_llama(tmp_path_factory.mktemp(f"llama-{seed}"), seed)
        return known[seed]

    return make
