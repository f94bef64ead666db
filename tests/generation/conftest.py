"""Tiny models of transformers, and the same ones loaded by us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from decoding.pairs import random_llama
from loquent import GenerationConfig


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model of ours and the same one of transformers."""
    return random_llama(tmp_path_factory.mktemp("llama"), 1)


@pytest.fixture
def model(pair: tuple[Any, Any]) -> Iterator[Any]:
    """Our model, with fresh settings; what a test leaves in its store is a failure."""
    ours = pair[0]
    ours.generation_config = GenerationConfig()
    yield ours
    if "_engine_slot" in vars(ours):
        engine = ours._engine_slot.engine
        engine.refresh()  # gives back what caches held that are gone
        assert engine.scheduler.idle
        assert engine.space.held == 0
        assert not engine.space.aside
