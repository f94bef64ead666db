"""Either library as an engine that generates by the arguments it is told; both run these same lines.

python -m strategies.serve LIBRARY FOLDER PRECISION THREADS    serves; it answers a line of JSON for each line of stdin
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

SHORT = 1


class Peer:
    """transformers, eager, with its default attention and cache."""

    def __init__(self, folder: str, precision: str) -> None:
        import torch

        library = import_module("transformers")
        self.torch, self.precision = torch, precision
        self.version, self._load = f"transformers {library.__version__}", library.AutoModelForCausalLM.from_pretrained
        self.model, self.drafts = self.load(folder), dict[str, Any]()

    def load(self, folder: str) -> Any:
        return self._load(folder, torch_dtype=getattr(self.torch, self.precision)).eval()

    def generate(self, rows: list[list[int]], options: dict[str, Any]) -> int:
        """How many new tokens the longest row has got."""
        ids = self.torch.tensor(rows)
        mask = self.torch.ones_like(ids)
        found = self.model.generate(ids, attention_mask=mask, pad_token_id=0, **options)
        return int(found.shape[1] - ids.shape[1])


class Ours:
    """Loquent, through what `loquent.load` gives."""

    def __init__(self, folder: str, precision: Any) -> None:
        self.precision = precision
        library = import_module("loquent")
        self.version, self._load = f"Loquent {library.__version__}", library.load
        self.model, self.drafts = self.load(folder), dict[str, Any]()

    def load(self, folder: str) -> Any:
        return self._load(folder, precision=self.precision, device="cpu").model

    def generate(self, rows: list[list[int]], options: dict[str, Any]) -> int:
        """How many new tokens the longest row has got."""
        found = import_module("loquent.generation").generate(self.model, rows, **options)
        return int(found.shape[1]) - len(rows[0])

    def acceptance(self, rows: list[list[int]], options: dict[str, Any]) -> list[float] | None:
        """The share of the drafted tokens that stood, and the tokens that a verifying pass gave; None: no drafts."""
        from loquent.decoding.trace import Drafted

        events = import_module("loquent.generation").stream(self.model, rows, events=True, **options)
        rounds = [told for event in events for told in event.trace if isinstance(told, Drafted)]
        stood = sum(draft.fate != "rejected" for told in rounds for draft in told.drafts)
        drafted = sum(len(told.drafts) for told in rounds)
        return [stood / drafted, stood / len(rounds) + 1] if rounds else None


def answer(engine: Any, request: dict[str, Any]) -> Any:
    """Tokens per second behind the first new one, or what drafts have come to."""
    new, rows = request["new"], request["rows"]
    options = {"do_sample": False, **request["options"]}
    if draft := request["draft"]:
        if draft not in engine.drafts:
            engine.drafts[draft] = engine.load(draft)
        options["assistant_model"] = engine.drafts[draft]
    if request["task"] == "acceptance":
        return engine.acceptance(rows, {**options, "max_new_tokens": new})
    spent, written = [], []
    for texts, count in ((rows[0], SHORT), (rows[1], new)):
        start = time.perf_counter()
        written.append(engine.generate(texts, {**options, "max_new_tokens": count}))
        spent.append(time.perf_counter() - start)
        if written[-1] < count:  # transformers' drafts by lookup may go past what was asked for
            raise RuntimeError(f"wrote {written[-1]} tokens instead of {count}")
    return len(rows[1]) * (written[1] - written[0]) / (spent[1] - spent[0])


def main(library: str, folder: str, precision: str, threads: str) -> None:
    """Serve; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if library == "transformers":
        import_module("torch").set_num_threads(int(threads))
    engine: Any = {"transformers": Peer, "loquent": Ours}[library](str(Path(folder)), precision)
    print(json.dumps(engine.version), file=answers, flush=True)
    for line in sys.stdin:
        try:
            found = {"found": answer(engine, json.loads(line))}
        except Exception as error:  # other versions of a library may lack a strategy
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
