"""SynthID's watermark: layer by layer, tokens whose number is 1 win probability from those whose number is 0.

    p(x) <- p(x) (1 + g(x) - sum over y of p(y) g(y))        Dathathri et al., 2024, Nature 634, 818-823

g is a hash of the last tokens, x and the layer's key, 0 or 1 by a table; both are as in transformers, table included.
A context that was marked before in this text is not marked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.config.watermarking import SynthIDTextWatermarkingConfig
from loquent.decoding.arrays import Array, beside, log_softmax, namespace, put, to_numpy, top
from loquent.decoding.rules.base import Context, Rule

_MULTIPLIER = 6364136223846793005  # newlib's and musl's generator


@dataclass(frozen=True)
class SynthID(Rule):
    """Marks with `config`; the context begins with zeros, as if the generated text stood alone."""

    config: SynthIDTextWatermarkingConfig

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[SynthID], contexts: Sequence[Context]) -> Array:
        for config in dict.fromkeys(rule.config for rule in rules):
            hashes = [context_hashes(config, context.tokens[context.prompt :]) for context in contexts]
            rows = [row for row, rule in enumerate(rules) if rule.config == config and _is_marked(config, hashes[row])]
            if config.debug_mode:
                uniform = [row for row, rule in enumerate(rules) if rule.config == config]
                scores[beside(scores, uniform)] = 1.0
            if rows:
                index = beside(scores, rows)
                scores[index] = _marked(scores[index], config, np.array([hashes[row][-1] for row in rows]))
        return scores


def context_hashes(config: SynthIDTextWatermarkingConfig, text: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hash of the context behind each of the text's beginnings, the empty one included: (length + 1,)."""
    width = config.ngram_len - 1
    padded = np.concatenate([np.zeros(width, np.int64), text])
    return ngram_hashes(np.lib.stride_tricks.sliding_window_view(padded, width))


def ngram_hashes(ngrams: NDArray[np.int64]) -> NDArray[np.int64]:
    """The hash of each row of tokens (n, size): (n,)."""
    hashes = np.ones(len(ngrams), np.int64)
    for column in ngrams.T:
        hashes = hashed(hashes, column)
    return hashes


def hashed(hashes: Any, data: Any) -> Any:
    """Hashes, any array of int64, that take in further numbers; what passes 64 bits falls away."""
    return (hashes + data) * _MULTIPLIER + 1


@lru_cache(maxsize=4)
def sampling_table(seed: int, size: int) -> NDArray[np.int64]:
    """Zeros and ones, (size,): a Mersenne twister's lowest bits, which are what torch draws on a CPU."""
    words = np.frombuffer(np.random.RandomState(seed & 0xFFFFFFFF).bytes(4 * size), "<u4")
    return (words & 1).astype(np.int64)


def _is_marked(config: SynthIDTextWatermarkingConfig, hashes: NDArray[np.int64]) -> bool:
    """Whether the last of the contexts is to be marked: none like it was before, as far as that is remembered."""
    first = config.ngram_len - 1 if config.skip_first_ngram_calls else 0
    if len(hashes) <= first:
        return False
    earlier = hashes[first:-1]
    return not (earlier[max(0, len(earlier) - config.context_history_size) :] == hashes[-1]).any()


def _marked(scores: Array, config: SynthIDTextWatermarkingConfig, hashes: NDArray[np.int64]) -> Array:
    """The scores (rows, vocabulary) after all layers, for the hash of each row's context, (rows,)."""
    xp = namespace(scores)
    possible = int(xp.max(xp.sum(xp.astype(scores > -xp.inf, xp.int64), axis=-1)))
    logs, tokens = top(scores, max(possible, 1))  # what is impossible stays so; mostly other rules have left few
    grown = hashed(beside(scores, hashes)[:, None], xp.astype(tokens, xp.int64))
    table = beside(scores, sampling_table(config.sampling_table_seed, config.sampling_table_size))
    weights = xp.exp(xp.astype(log_softmax(logs), xp.float64))
    for key in config.keys:
        ones = xp.astype(table[hashed(grown, key) % config.sampling_table_size], xp.float64)
        share = xp.sum(ones * weights, axis=-1, keepdims=True)
        weights = weights * xp.maximum(1 + ones - share, xp.zeros_like(share))
    logs = xp.where(weights > 0, xp.log(xp.where(weights > 0, weights, 1.0)), -xp.inf)
    rows = np.repeat(np.arange(len(hashes)), logs.shape[1])
    everything = xp.full_like(scores, -xp.inf)
    return put(everything, rows, to_numpy(tokens).reshape(-1), xp.astype(xp.reshape(logs, (-1,)), scores.dtype))
