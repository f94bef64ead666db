"""A program: reads a growing context into a store, and prints the process's anonymous bytes at some lengths.

growing.py KIND FOLDER LENGTH ...: KIND is "file" or "memory".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent import AutoConfig
from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Segment
from loquent.families import family_of
from loquent.native import core
from loquent.native.backend import NativeBackend

FIELDS = {
    "vocab_size": 256,
    "hidden_size": 512,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1 << 17,
}
STEP = 512
PAGE = 16


class RandomWeights:
    """The `loquent.native.weights.Weights` of a composition, drawn anew whenever they are asked for."""

    def __init__(self, decoder: Any) -> None:
        from loquent.native.checkpoint import shapes_of

        self._shapes = shapes_of(decoder)
        self._random = np.random.default_rng(0)

    def matrix(self, name: str) -> Any:
        rows, columns = self._shapes[name]
        matrix = core().Matrix("float32", rows, columns)
        matrix.fill(0, 0.03 * self._random.standard_normal((rows, columns), np.float32), "float32")
        return matrix

    def vector(self, name: str) -> NDArray[np.float32]:
        return np.ones(self._shapes[name], np.float32)


def random_backend() -> NativeBackend:
    """A rotary model of 4 layers, width 512 and 4 key-value heads."""
    config = AutoConfig.for_model("llama", **FIELDS)
    decoder = family_of(config).compose(config)
    return NativeBackend(decoder, RandomWeights(decoder))


def anonymous_bytes() -> int:
    """What the system says that this process holds of memory that is in no file."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


def grow(kind: StoreKind, lengths: list[int]) -> list[int]:
    """The anonymous bytes at each length of a context that is read step by step."""
    backend = random_backend()
    store = backend.open_store(PAGE, kind)
    tokens = np.random.default_rng(1).integers(0, 256, max(lengths))
    found = []
    for start in range(0, len(tokens), STEP):
        stop = start + STEP
        store.resize(0, stop // PAGE)
        backend.run(store, [Segment(tokens[start:stop], start, (np.arange(stop // PAGE),), 1, len(tokens))])
        if stop in lengths:
            found.append(anonymous_bytes())
    return found


if __name__ == "__main__":
    name, folder, *asked = sys.argv[1:]
    store_kind = StoreKind(offloaded=True, folder=folder) if name == "file" else PLAIN
    print(json.dumps(grow(store_kind, [int(length) for length in asked])))
