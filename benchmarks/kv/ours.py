"""Loquent with one kind of store, through what `loquent.load` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import loquent
from cpu.protocol import Rate
from kv.resident import resident
from loquent.generation import engine_of, stream

Rows = Sequence[Sequence[int]]

LAST = 3
"""New tokens behind a prompt, so that what only the prompt's own step needed has been given back."""


class Ours:
    """Weights in float32, so that stores alone make a difference."""

    version = f"Loquent {loquent.__version__}"

    def __init__(self, folder: str, key_values: str, kv_memory: str | None) -> None:
        limit: dict[str, Any] = {} if kv_memory is None else {"kv_memory": kv_memory}
        self.text = loquent.load(folder, precision="float32", key_values=key_values, device="cpu", **limit)

    def perplexity(self, texts: Sequence[str], options: dict[str, Any]) -> list[float]:
        """The log-probability of the texts, and how many tokens have one."""
        scores = [self.text.score(text, **options) for text in texts]
        return [sum(score.total for score in scores), sum(len(score.ids) for score in scores)]

    def held(self, rows: Rows, options: dict[str, Any], warm: int | None = None) -> dict[str, Any]:
        """What the rows' pages take behind their last tokens, by place and form; what the process has taken for them.

        The process has read a row before, or its first `warm` tokens, so that what computing takes is there already.
        """
        self._behind([rows[0][:warm]], options, lambda: None)
        engine = engine_of(self.text.model)
        engine.release_memory()
        before = resident()

        def measured() -> dict[str, Any]:
            now, parts = resident(), {}
            for memory in engine.memory():
                part = f"{memory.form} in {memory.place}"
                parts[part] = parts.get(part, 0) + memory.held
            return {"parts": parts, "own": now.own - before.own, "mapped": now.mapped - before.mapped}

        return self._behind(rows, options, measured)

    def _behind(self, rows: Rows, options: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """What `measure` gives when all rows have read all but the last of their new tokens."""
        missing = dict.fromkeys(range(len(rows)), LAST)
        with closing(self._stream(rows, LAST + 2, options)) as events:
            for event in events:
                missing[event.row] -= len(event.tokens)
                if all(count <= 0 for count in missing.values()):
                    return measure()
        raise RuntimeError(f"rows ended {missing} tokens too early")

    def decode(self, rows: Rows, new: int, options: dict[str, Any]) -> float:
        """Tokens per second behind each row's first new one."""
        rate = Rate(len(rows), new)
        for event in self._stream(rows, new, options):
            rate.tick(event.row, len(event.tokens))
        return float(rate)

    def _stream(self, rows: Rows, new: int, options: dict[str, Any]) -> Any:
        lists = [list(row) for row in rows]
        return stream(self.text.model, lists, max_new_tokens=new, min_new_tokens=new, do_sample=False, **options)
