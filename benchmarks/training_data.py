"""What preparing training data takes: encoding texts and conversations, packing them, and making a batch.

    python benchmarks/training_data.py TOKENIZER --text stories.txt.xz --dialogues dialogues.jsonl.xz

Seconds of wall time and of all cores' time: on a busy machine the latter is what counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loquent import AutoTokenizer
from loquent.training.data import (
    Examples,
    JoinedByEos,
    Order,
    Packs,
    Templated,
    encode_dialogues,
    encode_texts,
    line_breaks,
    read_dialogues,
    read_texts,
)

ROWS = 16
# Where the tokenizer has no template of its own; the second marks the answers.
PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
PLAIN += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
MARKED = (
    "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what a block took."""
    before, cores = time.perf_counter(), sum(os.times()[:2])
    yield
    wall, cores = time.perf_counter() - before, sum(os.times()[:2]) - cores
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{what:40} {wall:8.3f} s wall {cores:8.3f} s of cores   peak {peak} MiB so far", flush=True)


def packed(examples: Examples, length: int, **options: Any) -> Packs:
    """The packs of some examples, and a line about them."""
    packs = Packs(examples, length, **options)
    print(
        f"  {len(examples)} documents, {len(examples.tokens)} tokens, {examples.counted_tokens} counted: "
        f"{len(packs)} packs of {length}, {packs.padding:.2%} padding"
    )
    return packs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer")
    parser.add_argument("--text", nargs="+", default=[])
    parser.add_argument("--dialogues", nargs="+", default=[])
    parser.add_argument("--length", type=int, default=512)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = "<|endoftext|>"
    if given.text:
        with timed("encode texts"):
            examples = encode_texts(tokenizer, read_texts(given.text))
        with timed("pack"):
            packs = packed(examples, given.length)
        packed(examples, given.length, breaks=line_breaks(tokenizer))
        order = Order(len(packs), ROWS)
        with timed(f"100 batches of {ROWS}"):
            for step in range(100):
                packs.batch(order.batch(step))
        with timed("fingerprint"):
            packs.fingerprint()
    if given.dialogues:
        formats = {"marked template": MARKED, "plain template": PLAIN, "eos": None}
        for name, template in formats.items():
            tokenizer.chat_template = template
            written_as = Templated.of(tokenizer) if template else JoinedByEos.of(tokenizer)
            with timed(f"encode dialogues, {name}"):
                examples = encode_dialogues(tokenizer, read_dialogues(given.dialogues), written_as)
            packed(examples, given.length)


if __name__ == "__main__":
    main()
