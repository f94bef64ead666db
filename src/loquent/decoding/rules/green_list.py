"""A green-list watermark: a share of the vocabulary, picked anew by the text before it, gains score.

    score(x) + bias if x is in the list of seed(key, context)        Kirchenbauer et al., 2023, arXiv:2306.04634

The lists are those that transformers picks on a CPU: the first entries of a permutation (Fisher and Yates) drawn by a
Mersenne twister, which numpy has too. So each library finds the other's marks, on every backend and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from loquent.config.watermarking import WatermarkingConfig
from loquent.decoding.arrays import Array, Ints, add, to_numpy, top
from loquent.decoding.choice import Choice
from loquent.decoding.rules.base import Context, Rule

_SELF_TRIED = 40  # best tokens, of which those that are in their own green list gain
_TABLE = 1_000_003  # entries of the table that "selfhash" hashes with


@dataclass(frozen=True)
class GreenList(Rule):
    """Marks with `config`, for a model of `vocabulary` tokens."""

    config: WatermarkingConfig
    vocabulary: int

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[GreenList], contexts: Sequence[Context]) -> Array:
        acting = [context.tokens for context in contexts]
        best = None
        if any(rule.config.seeding_scheme == "selfhash" for rule in rules):
            best = to_numpy(top(scores, min(_SELF_TRIED, scores.shape[1]))[1])
        green = [
            rule._green(text, None if best is None else best[row]) if rule._acts(contexts[row]) else text[:0]
            for row, (rule, text) in enumerate(zip(rules, acting))
        ]
        return add(scores, [(own, np.full(len(own), rule.config.bias)) for rule, own in zip(rules, green)])

    def narrow(self, choice: Choice, context: Context) -> bool:
        return not self._acts(context)

    def _acts(self, context: Context) -> bool:
        return len(context.tokens) >= self.config.context_width

    def _green(self, text: NDArray[np.int64], best: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if self.config.seeding_scheme == "lefthash" or best is None:
            return green_list(self.config, self.vocabulary, text)
        width = self.config.context_width
        tail = text[len(text) - width + 1 :].tolist()
        own = [token for token in best.tolist() if is_green(self.config, self.vocabulary, (*tail, token), token)]
        return np.array(own, np.int64)


def green_list(config: WatermarkingConfig, vocabulary: int, text: Ints) -> NDArray[np.int64]:
    """The tokens that are green behind a text of at least one token, or with "selfhash" as its last: (size,)."""
    width = config.context_width if config.seeding_scheme == "selfhash" else 1
    return _picked(_seed(config, text[-width:]), vocabulary, int(vocabulary * config.greenlist_ratio))


def is_green(config: WatermarkingConfig, vocabulary: int, text: Sequence[int], token: int) -> bool:
    """Whether a token is in the green list of a text."""
    return bool((green_list(config, vocabulary, text) == token).any())


def _seed(config: WatermarkingConfig, last: Ints) -> int:
    """32 bits, all that the generator takes, of a product of key and tokens in 64 bits."""
    if config.seeding_scheme == "lefthash":
        return config.hashing_key * int(last[-1]) % (2**64 - 1) & 0xFFFFFFFF
    table = _table(config.hashing_key)
    numbers = [int(table[int(token) % _TABLE]) + 1 for token in last]
    products = [_signed(config.hashing_key * number * numbers[-1]) for number in numbers]
    return min(products) % (2**64 - 1) & 0xFFFFFFFF


def _signed(number: int) -> int:
    """What remains of a number in 64 bits with a sign."""
    return (number + 2**63) % 2**64 - 2**63


@lru_cache(maxsize=128)
def _picked(seed: int, vocabulary: int, count: int) -> NDArray[np.int64]:
    return _shuffled(seed, vocabulary, count)[:count]


@lru_cache(maxsize=2)
def _table(key: int) -> NDArray[np.int64]:
    return _shuffled(key & 0xFFFFFFFF, _TABLE, _TABLE)


def _shuffled(seed: int, size: int, count: int) -> NDArray[np.int64]:
    """The numbers below `size`, of which the first `count` have been drawn in a random order."""
    steps = np.arange(min(count, size - 1))
    words = np.frombuffer(np.random.RandomState(seed).bytes(4 * len(steps)), "<u4")
    numbers = list(range(size))
    for place, other in enumerate((words % (size - steps) + steps).tolist()):
        numbers[place], numbers[other] = numbers[other], numbers[place]
    return np.array(numbers, np.int64)
