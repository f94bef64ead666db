"""CTranslate2 as an engine.

python -m cpu.serve_ctranslate2 FOLDER PRECISION THREADS    serves
python -m cpu.serve_ctranslate2 FOLDER PRECISION THREADS TEXT    prints the first token after a text
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import ctranslate2
from tokenizers import Tokenizer

from cpu.protocol import Prompt, Rate, serve


class CTranslate2:
    """One replica on all threads; tokens go in and out as strings, as the library wants them."""

    version = f"CTranslate2 {ctranslate2.__version__}"

    def __init__(self, folder: str, precision: str, threads: int) -> None:
        self.generator = ctranslate2.Generator(
            folder, device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
        )
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")

    def generate(self, rows: Sequence[Prompt], new: int, **options: Any) -> list[list[int]]:
        tokens = [[self.tokenizer.id_to_token(token) for token in row] for row in rows]
        results = self.generator.generate_batch(
            tokens, max_length=new, min_length=new, include_prompt_in_result=False, **options
        )
        return [result.sequences_ids[0] for result in results]

    def decode(self, prompts: Sequence[Prompt], new: int) -> Rate:
        rate = Rate(len(prompts), new)

        def after_each_token(result: Any) -> bool:
            rate.tick(result.batch_id)
            return False

        self.generate(prompts, new, callback=after_each_token)
        return rate

    def prefill(self, prompt: Prompt) -> None:
        self.generate([prompt], 1)

    def beam(self, prompt: Prompt, width: int, new: int) -> None:
        self.generate([prompt], new, beam_size=width)

    def greedy(self, prompt: Prompt, new: int) -> list[int]:
        return self.generate([prompt], new)[0]

    def profile(self, batch: int) -> str:
        raise NotImplementedError


def main(folder: str, precision: str, threads: str, text: str | None = None) -> None:
    engine = CTranslate2(folder, precision, int(threads))
    if text is None:
        serve(engine)
    else:
        print(engine.tokenizer.decode(engine.greedy(engine.tokenizer.encode(text).ids, 1)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
