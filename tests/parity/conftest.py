"""The checkpoints of the parity tests, each made and loaded once per session."""

from __future__ import annotations

import pytest
from checkpoints import CASES, SWITCHES, MakePair, Pair, config_of, make


@pytest.fixture(scope="session")
def make_pair(tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """The pair of models for a family and the name of its switches."""
    known: dict[tuple[str, str], Pair] = {}

    def pair_of(family: str, name: str) -> Pair:
        if (family, name) not in known:
            folder = tmp_path_factory.mktemp(family)
            switches = SWITCHES[family][name]
            # A fixed seed each: which keys Doge keeps is a step, and some seeds put two mask values within rounding.
            make(folder, config_of(family, **switches), seed=CASES.index((family, name)))
            known[family, name] = Pair(folder, family, switches)
        return known[family, name]

    return pair_of


@pytest.fixture(scope="session", params=CASES, ids=[f"{family}: {name}" for family, name in CASES])
def pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """Each checkpoint in turn."""
    family, name = request.param
    return make_pair(family, name)
