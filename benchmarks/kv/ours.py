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

BEHIND = 3
"""Tokens that each row gets behind its prompt, so that what only the prompt's own step needed has been given back."""

READ_AT_ONCE = 512
"""A step reads more tokens of prompts than this: while the last row's prompt is read, the first rows go on writing."""


class Ours:
    """Weights in float32, so that stores alone make a difference."""

    version = f"Loquent {loquent.__version__}"

    def __init__(self, folder: str, key_values: str, kv_memory: str | None) -> None:
        asked = {"key_values": None if key_values == "float32" else key_values, "kv_memory": kv_memory}
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        self.text = loquent.load(folder, precision="float32", device="cpu", **given)

    def perplexity(self, texts: Sequence[str], options: dict[str, Any]) -> list[float]:
        """The log-probability of the texts, and how many tokens have one."""
        scores = [self.text.score(text, **options) for text in texts]
        return [sum(score.total for score in scores), sum(len(score.ids) for score in scores)]

    def held(self, rows: Rows, options: dict[str, Any], warm: int | None = None) -> dict[str, Any]:
        """What the rows' pages take behind their last tokens, by place and form; what the process has taken for them.

        The process has read a row before, or its first `warm` tokens, so that what computing takes is there already.
        """
        self._behind([rows[0][:warm]], options, lambda written: None)
        engine = engine_of(self.text.model)
        engine.release_memory()
        before = resident()

        def measured(written: list[int]) -> dict[str, Any]:
            now = resident()
            parts: dict[str, int] = {}
            for memory in engine.memory():
                part = f"{memory.form} in {memory.place}"
                parts[part] = parts.get(part, 0) + memory.held
            read = [len(row) + count - 1 for row, count in zip(rows, written)]
            return {"parts": parts, "read": read, "own": now.own - before.own, "mapped": now.mapped - before.mapped}

        found: dict[str, Any] = self._behind(rows, options, measured)
        return found

    def _behind(self, rows: Rows, options: dict[str, Any], measure: Callable[[list[int]], Any]) -> Any:
        """What `measure` makes of how many tokens each row has written, once all have written a few, and all go on."""
        written, enough = [0] * len(rows), BEHIND + 2 + sum(map(len, rows)) // READ_AT_ONCE
        with closing(self._stream(rows, enough, options)) as events:
            for event in events:
                written[event.row] += len(event.tokens)
                if min(written) >= BEHIND:
                    return measure(written)
        raise RuntimeError(f"rows ended behind {written} tokens")

    def decode(self, rows: Rows, new: int, options: dict[str, Any]) -> float:
        """Tokens per second behind each row's first new one."""
        rate = Rate(len(rows), new)
        for event in self._stream(rows, new, options):
            rate.tick(event.row, len(event.tokens))
        return float(rate)

    def _stream(self, rows: Rows, new: int, options: dict[str, Any]) -> Any:
        lists = [list(row) for row in rows]
        return stream(self.text.model, lists, max_new_tokens=new, min_new_tokens=new, do_sample=False, **options)
