"""Rules that remember: on backends that read everything again at each step as on those that do not."""

from __future__ import annotations

from typing import Any

from engine.toy import ToyBackend
from loquent.decoding.rules import Mirostat
from loquent.decoding.stopping import Stopping
from loquent.decoding.strategies import one_by_one
from loquent.decoding.task import Decoding
from loquent.engine import Engine


def written(incremental: bool, eta: float, seed: int) -> tuple[int, ...]:
    toy: Any = ToyBackend()
    toy.incremental = incremental
    decoding = Decoding(one_by_one, Stopping(24), (Mirostat(0.7, eta),), sampled=True, seed=seed)
    engine = Engine(toy)
    handle = engine.submit([1, 2, 3], decoding)
    while engine.step():
        pass
    return handle.result()[0].tokens


def test_mirostat_remembers_where_all_is_read_again() -> None:
    texts = {seed: written(True, 2.0, seed) for seed in range(4)}
    assert texts == {seed: written(False, 2.0, seed) for seed in range(4)}
    assert texts != {seed: written(True, 0.0, seed) for seed in range(4)}
