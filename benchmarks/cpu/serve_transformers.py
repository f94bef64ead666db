"""transformers as an engine.

python -m cpu.serve_transformers FOLDER PRECISION THREADS    serves
python -m cpu.serve_transformers FOLDER PRECISION THREADS TEXT    prints the first token after a text
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from cpu.protocol import Prompt, Rate, serve


class Transformers:
    """Eager, with its default attention and cache."""

    version = f"transformers {transformers.__version__}"

    def __init__(self, folder: str, precision: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision)).eval()

    def generate(self, rows: Sequence[Prompt], new: int, **options: Any) -> list[list[int]]:
        ids = torch.tensor(rows)
        mask = torch.ones_like(ids)
        out = self.model.generate(ids, attention_mask=mask, max_new_tokens=new, pad_token_id=0, **options)
        return out[:, ids.shape[1] :].tolist()

    def decode(self, prompts: Sequence[Prompt], new: int) -> Rate:
        rate = Rate(len(prompts), new)

        def after_each_step(ids: torch.Tensor, scores: Any) -> torch.Tensor:
            rate.tick_all()
            return torch.zeros(len(prompts), dtype=torch.bool)

        self.generate(prompts, new, do_sample=False, stopping_criteria=[after_each_step])
        return rate

    def prefill(self, prompt: Prompt) -> None:
        self.generate([prompt], 1, do_sample=False)

    def beam(self, prompt: Prompt, width: int, new: int) -> None:
        self.generate([prompt], new, do_sample=False, num_beams=width)

    def greedy(self, prompt: Prompt, new: int) -> list[int]:
        return self.generate([prompt], new, do_sample=False)[0]

    def profile(self, batch: int) -> str:
        raise NotImplementedError


def main(folder: str, precision: str, threads: str, text: str | None = None) -> None:
    torch.set_num_threads(int(threads))
    engine = Transformers(folder, precision)
    if text is None:
        serve(engine)
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        print(tokenizer.decode(engine.greedy(tokenizer(text)["input_ids"], 1)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
