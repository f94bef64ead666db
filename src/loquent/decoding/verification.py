"""Which drafted tokens stand, so that what comes out is what decoding without drafts gives.

Greedily, a draft stands while it is what would have been chosen. Sampled (Leviathan et al., 2023, arXiv:2211.17192;
Chen et al., 2023, arXiv:2302.01318): draft x ~ q stands with probability min(1, p(x) / q(x)); the token in place of the
first that falls is drawn from max(p - q, 0), normalised. A draft that was not drawn has q(x) = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, beside, log_softmax, to_numpy
from loquent.decoding.random import Purpose
from loquent.decoding.selection import drawn, most_likely
from loquent.decoding.wants import Proposal, Verdict, Verify


def verdicts(scores: Array, want: Verify, number: Callable[[int, Purpose], float] | None) -> Verdict:
    """How many of the proposals stand, and the token behind them.

    Args:
        scores: after the rules, (proposals + 1, vocabulary): row i is what proposal i is measured by.
        want: with the drafted tokens, in order.
        number: a random number in [0, 1) for row i and a purpose; None: greedily.
    """
    verdict = _verdict(scores, want.proposals, number)
    if not want.weighed:
        return verdict
    rows = [*range(len(want.proposals)), verdict.accepted]
    tokens = [*(proposal.token for proposal in want.proposals), verdict.token]
    gained = log_softmax(scores)[beside(scores, rows), beside(scores, tokens)]
    return replace(verdict, scores=tuple(to_numpy(gained).astype(np.float64).tolist()))


def _verdict(scores: Array, proposals: Sequence[Proposal], number: Callable[[int, Purpose], float] | None) -> Verdict:
    if number is None:
        chosen = most_likely(scores).tolist()
        stands = 0
        while stands < len(proposals) and proposals[stands].token == chosen[stands]:
            stands += 1
        return Verdict(stands, chosen[stands])
    for index, proposal in enumerate(proposals):
        wanted = _probabilities(scores[index, :])
        share = 1.0 if proposal.odds is None else proposal.odds.probability(proposal.token)
        if number(index, Purpose.ACCEPT) * share < wanted[proposal.token]:
            continue
        return Verdict(index, _replacement(wanted, proposal, number(index, Purpose.RESAMPLE)))
    last = len(proposals)
    [token] = drawn(scores[last : last + 1, :], [number(last, Purpose.DRAW)])
    return Verdict(last, int(token))


def _replacement(wanted: NDArray[np.float64], fallen: Proposal, number: float) -> int:
    """A draw from what is wanted more than it was offered."""
    rest = wanted.copy()
    if fallen.odds is None:
        rest[fallen.token] = 0
    else:
        rest[fallen.odds.tokens] -= fallen.odds.probabilities
        np.maximum(rest, 0, out=rest)
    sums = np.cumsum(rest)
    if sums[-1] <= 0:  # both agree but for rounding
        sums = np.cumsum(wanted)
    return int(np.searchsorted(sums, number * sums[-1], side="right"))


def _probabilities(row: Array) -> NDArray[np.float64]:
    wide = to_numpy(row).astype(np.float64)
    weights: NDArray[np.float64] = np.exp(wide - wide.max())
    weights /= weights.sum()
    return weights
