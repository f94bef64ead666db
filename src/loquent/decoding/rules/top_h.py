"""Top-H: the best tokens stay as long as their share of the entropy is bounded (Potraghloo et al., 2025).

    sum over the kept of -p log p <= alpha H(p)        arXiv:2509.02510

As in transformers 5, p is the distribution over the 100 best tokens, and no others stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loquent.decoding.arrays import Array, column, log_softmax, namespace, top
from loquent.decoding.rules.base import Context, Rule

_CONSIDERED = 100


@dataclass(frozen=True)
class TopH(Rule):
    """Keeps tokens, best first, up to `share` (above 0, up to 1) of the entropy; the best always stays."""

    share: float

    @classmethod
    def apply(cls, scores: Array, rules: Sequence[TopH], contexts: Sequence[Context]) -> Array:
        xp = namespace(scores)
        best, _ = top(scores, min(_CONSIDERED, scores.shape[1]))  # (rows, 100)
        logs = log_softmax(best)
        weights = xp.exp(logs)
        reached = xp.cumulative_sum(-weights * xp.where(weights > 0, logs, 0.0), axis=-1)
        within = reached <= column(scores, [rule.share for rule in rules]) * reached[:, -1:]
        kept = xp.sum(xp.astype(within, xp.int64), axis=-1, keepdims=True)
        least = xp.take_along_axis(best, xp.maximum(kept - 1, xp.zeros_like(kept)), axis=1)
        return xp.where(scores < least, -xp.inf, scores)
