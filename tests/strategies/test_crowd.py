"""A thousand requests of all strategies through a quarter of the room that they would take: nothing is lost."""

from __future__ import annotations

import random
from typing import Any

import pytest
from test_matrix import REQUESTS, STORES, engine_with, readers_of, requests_of, rows_of, submit

from loquent import GenerationHandle, open_engine
from loquent.engine import Engine
from loquent.errors import ArgumentError
from properties.models import tiny

COUNT = 1000


def crowd(family: str, limit: int | None) -> tuple[dict[int, list[Any]], set[int], int, int]:
    """The same requests at the same steps, some of them cancelled.

    Returns the results of the others, who was cancelled, the most bytes held at once, and how many pages were taken
    away from requests.
    """
    model, choose, most = tiny(family), random.Random(3), 0
    cancelled = {number for number in range(COUNT) if choose.random() < 0.1}
    with engine_with(model, page_size=4, step_tokens=96, max_running=96) as engine:
        engine.kv_memory = limit
        handles: dict[int, Any] = {}
        going = True
        while going or len(handles) < COUNT:
            for number in range(len(handles), min(COUNT, len(handles) + choose.randint(0, 24))):
                kind = choose.choice([{}, {}, *STORES.values()])
                asked = {"max_new_tokens": choose.randint(1, 24), **kind}
                if choose.random() < 0.5:
                    asked["eos_token_id"] = None
                handles[number] = submit(model, choose.choice([*REQUESTS]), **asked)
            for number in sorted(cancelled & handles.keys()):
                if choose.random() < 0.05:
                    handles[number].cancel()
            going = open_engine(model).step()
            most = max(most, held_in_memory(engine))
        results = {number: outcome(handle) for number, handle in handles.items() if number not in cancelled}
        evictions = sum(request.evictions for handle in handles.values() for request in requests_of(handle))
    return results, cancelled, most, evictions


def outcome(handle: GenerationHandle) -> list[Any]:
    """Tokens and reasons, or why it failed, as a grammar does whose text is done where no token ends it."""
    try:
        return [row[:2] for row in rows_of(handle)]
    except ArgumentError as error:
        return [str(error)]


def held_in_memory(engine: Engine) -> int:
    return sum(reader.space.held_bytes for reader in readers_of(engine) if reader.space.budget is engine._budget)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt_neo", "doge"])
def test_a_thousand_requests_through_a_quarter_of_the_room(family: str) -> None:
    free, cancelled, most, _ = crowd(family, None)
    tight, *_, held, evictions = crowd(family, most // 4)
    assert held <= most // 4
    assert evictions > 100
    assert len(free) == COUNT - len(cancelled) > 800
    assert sum(len(rows) > 1 or isinstance(rows[0], tuple) for rows in free.values()) > 750
    assert free == tight
