"""What the default model can do, in figures: bits per byte of held-out text, known words, and samples as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from default_model.corpus import Corpus, words
from default_model.trigram import Trigram
from default_model.vocabulary import encode_documents
from loquent import DogeForCausalLM

PROMPTS, SAMPLE_SEED = 200, 7
_SPAN = 1024
_AT_ONCE = 50

Figures = dict[str, float | int]


def measure(
    model: DogeForCausalLM, tokenizer: Any, corpus: Corpus, train: NDArray[np.uint16]
) -> tuple[Figures, list[tuple[str, str]]]:
    """The figures of the model card, and the prompts with what the model wrote. `train` is the encoded corpus."""
    held_out = encode_documents(tokenizer.backend_tokenizer, corpus.held_out)
    size = sum(len(document.encode()) for document in corpus.held_out)
    prompts = openings(corpus.held_out, PROMPTS)
    texts = write(model, tokenizer, prompts, SAMPLE_SEED)
    vocabulary = word_list(corpus.train)
    figures: Figures = {
        "train_documents": len(corpus.train),
        "train_bytes": sum(len(document.encode()) for document in corpus.train),
        "train_tokens": len(train),
        "held_out_documents": len(corpus.held_out),
        "held_out_bytes": size,
        "held_out_tokens": len(held_out),
        "bits_per_byte": round(bits(model, held_out, model.config.sliding_window) / size, 4),
        "token_trigram_bits_per_byte": round(Trigram(train, model.config.vocab_size).bits(held_out) / size, 4),
        "byte_trigram_bits_per_byte": round(Trigram(_bytes(corpus.train), 256).bits(_bytes(corpus.held_out)) / size, 4),
        "written_texts": len(texts),
        **known_words(texts, vocabulary),
        "held_out_known_words": known_words(corpus.held_out, vocabulary)["known_words"],
    }
    return figures, list(zip(prompts, texts, strict=True))


@torch.no_grad()
def bits(model: DogeForCausalLM, tokens: NDArray[np.uint16], context: int) -> float:
    """What it costs to tell all but the first of `tokens`, each given at least `context` tokens before it."""
    total = 0.0
    for start in range(0, len(tokens) - 1, _SPAN):
        first = max(0, start - context)
        row = torch.from_numpy(tokens[first : start + _SPAN + 1].astype(np.int64))
        logits = model(input_ids=row[None, :-1]).logits[0, start - first :]
        total += float(F.cross_entropy(logits.float(), row[start - first + 1 :], reduction="sum"))
    return total / math.log(2)


def write(model: DogeForCausalLM, tokenizer: Any, prompts: Sequence[str], seed: int, **settings: Any) -> list[str]:
    """A continuation of each prompt, without the prompt, sampled as the generation config says."""
    texts: list[str] = []
    for start in range(0, len(prompts), _AT_ONCE):
        some = list(prompts[start : start + _AT_ONCE])
        inputs = tokenizer(some, return_tensors="pt", padding=True, padding_side="left")
        seeds = list(range(seed + start, seed + start + len(some)))
        written = model.generate(**inputs, seed=seeds, **settings)
        texts += tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def openings(documents: Sequence[str], count: int) -> list[str]:
    """Prompts: the first five words of paragraphs, evenly chosen."""
    lines = [line for document in documents for line in document.split("\n") if line.count(" ") >= 10]
    places = np.linspace(0, len(lines) - 1, count).astype(int)
    return [" ".join(lines[place].split()[:5]) for place in places]


def known_words(texts: Sequence[str], vocabulary: frozenset[str]) -> Figures:
    """How many words were written and the share that is in `vocabulary`; leaves out each text's last, maybe cut off."""
    written = [word for text in texts for word in words(text)[:-1]]
    kinds = set(written)
    return {
        "written_words": len(written),
        "known_words": round(sum(word in vocabulary for word in written) / len(written), 4),
        "known_different_words": round(len(kinds & vocabulary) / len(kinds), 4),
    }


def word_list(documents: Sequence[str]) -> frozenset[str]:
    """All different words of the documents."""
    return frozenset(word for document in documents for word in words(document))


def _bytes(documents: Sequence[str]) -> NDArray[np.uint8]:
    """Documents as bytes, with a zero before the first and after each."""
    return np.frombuffer(("\0" + "\0".join(documents) + "\0").encode(), np.uint8)
