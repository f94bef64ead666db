"""Either library as a process that reads and writes with one kind of store; both run these same lines.

python -m kv.serve LIBRARY FOLDER KEY_VALUES KV_MEMORY THREADS    serves: a line of JSON for each line of stdin

KV_MEMORY is a budget such as 256MiB, or - for the library's own; KEY_VALUES and it are for ours alone.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

from kv.resident import resident


def answer(engine: Any, request: dict[str, Any]) -> Any:
    """What one request asks for; see `kv.ours.Ours` and `kv.peer.Peer`."""
    task, arguments = request["task"], request["arguments"]
    if task == "resident":
        return resident()._asdict()
    return getattr(engine, task)(**arguments)


def main(library: str, folder: str, key_values: str, kv_memory: str, threads: str) -> None:
    """Serve; whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if library == "transformers":
        engine: Any = import_module("kv.peer").Peer(folder, int(threads))
    else:
        engine = import_module("kv.ours").Ours(folder, key_values, None if kv_memory == "-" else kv_memory)
    print(json.dumps(engine.version), file=answers, flush=True)
    for line in sys.stdin:
        try:
            found = {"found": answer(engine, json.loads(line))}
        except Exception as error:  # what a store refuses, or a library cannot do, is a result too
            found = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
