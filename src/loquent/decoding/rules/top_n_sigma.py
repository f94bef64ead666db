"""Top-n-sigma: logits further below the best than n of their standard deviations go (Tang et al., 2024).

    score >= max - n sigma        arXiv:2411.07641

Sigma is over the tokens that are possible, as in llama.cpp. The set does not depend on the temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, namespace
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class TopNSigma(Rule):
    """Keeps the tokens within `count` (above 0) standard deviations of the best."""

    count: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopNSigma], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        possible = scores > -xp.inf
        number = xp.sum(xp.astype(possible, scores.dtype), axis=-1, keepdims=True)
        highest = xp.max(scores, axis=-1, keepdims=True)
        below = xp.where(possible, highest - scores, 0.0)  # differences, which large logits do not round away
        mean = xp.sum(below, axis=-1, keepdims=True) / number
        apart = xp.where(possible, below - mean, 0.0)
        sigma = xp.sqrt(xp.sum(apart * apart, axis=-1, keepdims=True) / number)
        return xp.where(below > column(scores, [rule.count for rule in rules]) * sigma, -xp.inf, scores)
