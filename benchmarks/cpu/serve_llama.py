"""llama.cpp as an engine, through the C interface that llama-cpp-python exposes.

python -m cpu.serve_llama FILE PRECISION THREADS    serves
python -m cpu.serve_llama FILE PRECISION THREADS TEXT    prints the first token after a text
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from cpu.protocol import Prompt, Rate, serve

LONGEST_READ = 2048  # tokens of one call
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Llama:
    """A model, and one context for each number of sequences that was asked for."""

    version = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"

    def __init__(self, file: str, threads: int) -> None:
        llama_cpp.llama_log_set(SILENT, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.threads = threads
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {file}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.contexts: dict[tuple[int, int], Any] = {}
        self.batch = llama_cpp.llama_batch_init(LONGEST_READ, 0, 1)
        self.tokens = np.ctypeslib.as_array(self.batch.token, shape=(LONGEST_READ,))
        self.positions = np.ctypeslib.as_array(self.batch.pos, shape=(LONGEST_READ,))
        self.logits: dict[tuple[int, int], NDArray[np.float32]] = {}  # views, by their address and rows

    def context(self, sequences: int, length: int) -> Any:
        """An empty context for so many sequences of this length each."""
        key = sequences, length
        if key not in self.contexts:
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = sequences * length
            params.n_batch = LONGEST_READ
            params.n_ubatch = 512
            params.n_seq_max = sequences
            params.n_threads = params.n_threads_batch = self.threads
            self.contexts[key] = llama_cpp.llama_init_from_model(self.model, params)
            if not self.contexts[key]:
                raise RuntimeError(f"llama.cpp cannot open {sequences} sequences of {length} tokens")
        context = self.contexts[key]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        return context

    def fill(self, tokens: Sequence[tuple[int, int, int, bool]]) -> None:
        """What the next call reads, each as (id, position, sequence, whether its logits are wanted)."""
        self.batch.n_tokens = len(tokens)
        for slot, (token, position, sequence, wanted) in enumerate(tokens):
            self.tokens[slot] = token
            self.positions[slot] = position
            self.batch.n_seq_id[slot] = 1
            self.batch.seq_id[slot][0] = sequence
            self.batch.logits[slot] = wanted

    def read(self, context: Any, rows: int) -> NDArray[np.int64]:
        """Read what was filled in, and give the best token of each of so many rows of logits."""
        if llama_cpp.llama_decode(context, self.batch):
            raise RuntimeError("llama_decode failed")
        address = ctypes.addressof(llama_cpp.llama_get_logits(context).contents), rows
        if address not in self.logits:  # making a view costs more than a small model's head
            values = llama_cpp.llama_get_logits(context)
            self.logits[address] = np.ctypeslib.as_array(values, shape=(rows, self.vocabulary))
        return self.logits[address].argmax(axis=1)

    def read_prompts(self, context: Any, prompts: Sequence[Prompt]) -> list[int]:
        """The token after each prompt; prompts are read as many at a time as fit into one call."""
        at_once = max(1, LONGEST_READ // len(prompts[0]))
        found: list[int] = []
        for first in range(0, len(prompts), at_once):
            part = list(enumerate(prompts))[first : first + at_once]
            self.fill([(t, p, row, p == len(prompt) - 1) for row, prompt in part for p, t in enumerate(prompt)])
            found += self.read(context, len(part)).tolist()
        return found

    def decode(self, prompts: Sequence[Prompt], new: int) -> Rate:
        rows, length = len(prompts), len(prompts[0])
        rate = Rate(rows, new)
        context = self.context(rows, length + new)
        first = self.read_prompts(context, prompts)
        rate.tick_all()
        self.fill([(token, length, row, True) for row, token in enumerate(first)])
        for _ in range(new - 1):
            self.tokens[:rows] = self.read(context, rows)
            self.positions[:rows] += 1
            rate.tick_all()
        return rate

    def prefill(self, prompt: Prompt) -> None:
        self.read_prompts(self.context(1, len(prompt) + 1), [prompt])

    def beam(self, prompt: Prompt, width: int, new: int) -> None:
        raise NotImplementedError  # llama.cpp has no beam search any more

    def greedy(self, prompt: Prompt, new: int) -> list[int]:
        context = self.context(1, len(prompt) + new)
        tokens = self.read_prompts(context, [prompt])
        for position in range(len(prompt), len(prompt) + new - 1):
            self.fill([(tokens[-1], position, 0, True)])
            tokens += self.read(context, 1).tolist()
        return tokens

    def profile(self, batch: int) -> str:
        raise NotImplementedError

    def tokenize(self, text: str) -> Prompt:
        data = text.encode()
        tokens = (llama_cpp.llama_token * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, len(tokens), False, True)
        return list(tokens[:count])


def main(file: str, precision: str, threads: str, text: str | None = None) -> None:
    engine = Llama(file, int(threads))
    if text is None:
        serve(engine)
    else:
        [token] = engine.greedy(engine.tokenize(text), 1)
        print(llama_cpp.llama_vocab_get_text(engine.vocab, token), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
