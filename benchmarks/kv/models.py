"""Models with random weights whose contexts are long, written as folders in the Hugging Face format.

Run in an environment that has loquent[torch]: python -m kv.models MODEL FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cpu.checkpoints import write_tokenizer
from cpu.shapes import NO_ENDS
from kv.stores import Shape

VOCABULARY, WINDOW = 4096, 256

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1 << 17,
    "tie_word_embeddings": True,
    **NO_ENDS,
}
MODELS: dict[str, tuple[str, dict[str, Any], Shape]] = {
    "growing": ("Llama", _SIZES, Shape(4, 4, 64)),
    "windowed": ("Doge", {**_SIZES, "sliding_window": WINDOW}, Shape(4, 4, 64, masked=True, window=WINDOW)),
}
"""The stem of the classes, the config's fields, and the shape of keys and values."""


def write(name: str, folder: Path) -> None:
    """One of MODELS, with a tokenizer that nobody trained."""
    import torch

    import loquent

    torch.manual_seed(0)
    family, fields, _ = MODELS[name]
    config = getattr(loquent, f"{family}Config")(**fields)
    getattr(loquent, f"{family}ForCausalLM")(config).save_pretrained(folder)
    write_tokenizer(VOCABULARY, folder)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
