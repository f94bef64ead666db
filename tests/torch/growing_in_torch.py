"""A program: reads a growing context into a torch model's store, and prints the process's anonymous bytes.

growing_in_torch.py KIND FOLDER LENGTH ...: KIND is "file" or "memory".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from loquent.cache import PLAIN, StoreKind
from loquent.engine.backend import Segment
from loquent.families import family
from loquent.torch.classes import LlamaForCausalLM
from loquent.torch.runner import TorchBackend

FIELDS = {
    "vocab_size": 256,
    "hidden_size": 512,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1 << 17,
}
STEP = 64
PAGE = 16


def backend() -> TorchBackend:
    """A rotary model of 2 layers, width 512 and 4 key-value heads."""
    torch.manual_seed(0)
    return TorchBackend(LlamaForCausalLM(family("llama").config(**FIELDS)).eval())


def anonymous_bytes() -> int:
    """What the system says that this process holds of memory that is in no file."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) << 10


def grow(kind: StoreKind, lengths: list[int]) -> list[int]:
    """The anonymous bytes at each length of a context that is read step by step."""
    model = backend()
    store = model.open_store(PAGE, kind)
    tokens = np.random.default_rng(1).integers(0, 256, max(lengths))
    found = []
    for start in range(0, len(tokens), STEP):
        stop = start + STEP
        store.resize(0, stop // PAGE)
        model.run(store, [Segment(tokens[start:stop], start, (np.arange(stop // PAGE),), 1, len(tokens))])
        if stop in lengths:
            found.append(anonymous_bytes())
    return found


if __name__ == "__main__":
    name, folder, *asked = sys.argv[1:]
    store_kind = StoreKind(offloaded=True, folder=folder) if name == "file" else PLAIN
    print(json.dumps(grow(store_kind, [int(length) for length in asked])))
