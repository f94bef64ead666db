"""A tiny run for `test_several_devices`: writes its losses, and those of its evaluation, as JSON.

python several_devices.py FOLDER BATCH_SIZE    once, or in several processes by torchrun
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from loquent import LlamaConfig, LlamaForCausalLM
from loquent.training import Examples, TrainingArguments, train


def main(folder: Path, batch_size: int) -> None:
    random = np.random.default_rng(0)
    documents, held_out = ([random.integers(0, 50, length) for length in range(3, 40)] for _ in range(2))
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **shape))
    arguments = TrainingArguments(
        folder,
        max_steps=6,
        max_length=24,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=2,
        learning_rate=0.01,
        save_steps=3,
    )
    told: list[str] = []
    result = train(
        model,
        Examples.of_ids(documents, 50),
        arguments,
        evaluation=Examples.of_ids(held_out, 50),
        listeners=[lambda event: told.append(type(event).__name__)],
    )
    if told:
        found = {"losses": result.losses, "evaluation": result.evaluations[-1].loss, "told": told}
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
