"""How likely a model finds tokens behind others: many rows in one run of the engine; nothing is generated."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from loquent.cache import StoreKind
from loquent.decoding.arguments.stores import store_of
from loquent.decoding.stopping import Stopping
from loquent.decoding.task import Decoding, Hypothesis, Read, Strategy, Task
from loquent.decoding.wants import Targets, TargetScores
from loquent.engine import Engine, Handle
from loquent.engine.reader import Reader
from loquent.errors import ContextLengthError
from loquent.generation import Bound, engine_of, tidy
from loquent.generation.running import facts_of
from loquent.generation.settings import merged
from loquent.generation.stores import home_of

AT_ONCE = 64
"""Rows that are with the engine at a time, which is enough to fill its steps."""


@dataclass(frozen=True)
class Row:
    """Tokens of which the last `scored` are looked at, each behind all that stand before it."""

    tokens: Sequence[int]
    scored: int  # at least 1, and fewer than there are tokens


def target_scores(
    model: Bound, rows: Iterable[Row], options: Mapping[str, Any]
) -> Generator[tuple[int, TargetScores], None, None]:
    """What the model makes of each row, with the row's number, as they are done; their order is the engine's.

    Rows that begin equally share what is read of that. Closing the generator stops the engine's work on them.

    Args:
        model: what is asked.
        rows: taken one by one, when there is room for them.
        options: how keys and values are kept: `cache_implementation`, `cache_config`, `offload_folder` of `generate`.

    Raises:
        ArgumentError: the store cannot be had.
        ContextLengthError: a row has more tokens than the model positions, the last one aside.
    """
    engine = engine_of(model)
    store = store_of(merged(model.generation_config, None, dict(options)), facts_of(model, engine.backend))
    home = home_of(engine, model, store)
    engine.refresh()
    return _scored(engine, enumerate(rows), store, home)


def _scored(
    engine: Engine, rows: Iterable[tuple[int, Row]], store: StoreKind, home: Reader | None
) -> Generator[tuple[int, TargetScores], None, None]:
    waiting = iter(rows)
    running: deque[tuple[int, Handle, list[TargetScores]]] = deque()
    try:
        while True:
            while len(running) < AT_ONCE and (following := next(waiting, None)):
                running.append((following[0], *_submitted(engine, following[1], store, home)))
            if not running:
                return
            engine.step()
            for number, handle, found in list(running):
                if handle.done:
                    handle.result()  # raises what made it fail
                    yield number, found[0]
            running = deque(each for each in running if not each[1].done)
    finally:
        for _, handle, _ in running:
            handle.cancel()
        tidy(engine)


def _submitted(engine: Engine, row: Row, store: StoreKind, home: Reader | None) -> tuple[Handle, list[TargetScores]]:
    """A request, and where its answer comes to."""
    positions, length = engine.backend.max_positions, len(row.tokens) - 1
    if positions is not None and length > positions:
        raise ContextLengthError(
            f"A row's {length} tokens exceed the model's {positions} positions. Score it in parts."
        )
    found: list[TargetScores] = []

    def read_once(task: Task) -> Strategy:
        found.extend((yield [Read(task.open(), task.prompt, Targets(tuple(row.tokens[-row.scored :])))]))
        task.rank([Hypothesis((), "length")])

    reading = Decoding(strategy=read_once, stopping=Stopping(max_new_tokens=0), store=store, home=home)
    return engine.submit(np.asarray(row.tokens[:-1], np.int64), reading), found


def all_target_scores(model: Bound, rows: Sequence[Row], options: Mapping[str, Any]) -> list[TargetScores]:
    """`target_scores` in the order of the rows."""
    with closing(target_scores(model, rows, options)) as scored:
        found = dict(scored)
    return [found[number] for number in range(len(rows))]
