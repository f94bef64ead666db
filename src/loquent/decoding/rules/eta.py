"""Eta sampling: a cutoff as in epsilon sampling, lower where the distribution is flat (Hewitt et al., 2022).

min(epsilon, sqrt(epsilon) exp(-H(p)))        arXiv:2210.15191
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, log_softmax, namespace, nth_best
from loquent.decoding.rules.base import Context, Rule


@dataclass(frozen=True)
class Eta(Rule):
    """Keeps the tokens with at least the probability that `epsilon` and the entropy give, and the `keep` best."""

    epsilon: float
    keep: int = 1

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[Eta], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        logs = log_softmax(scores)
        weights = xp.exp(logs)
        entropy = -xp.sum(weights * xp.where(weights > 0, logs, 0.0), axis=-1, keepdims=True)
        roots = column(scores, [math.sqrt(rule.epsilon) for rule in rules])
        cutoff = xp.minimum(column(scores, [rule.epsilon for rule in rules]), roots * xp.exp(-entropy))
        best = nth_best(scores, [rule.keep for rule in rules])
        return xp.where((weights < cutoff) & (scores < best), -xp.inf, scores)
