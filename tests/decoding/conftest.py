"""Decoding's tests share their models, and are small: one thread is fastest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from decoding.pairs import MakePair, random_llama


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama_pair(tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """A pair of equal models for a seed, made once."""
    known: dict[int, tuple[Any, Any]] = {}

    def make(seed: int) -> tuple[Any, Any]:
        if seed not in known:
            known[seed] = random_llama(tmp_path_factory.mktemp(f"llama-{seed}"), seed)
        return known[seed]

    return make
