"""Pace: how many tokens to draft next, from how many of those before have stood; nothing here depends on the clock.

What a request drafts must depend on the request alone: sampled tokens depend on which of them were drafted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

# What one more row in a pass costs, in passes over one row, while the weights' way from memory takes most of it; and
# what remains of a pass over one where computing takes most.
_ROW_COST, _REST = 0.03, 0.3
# The host's work for verifying drafts and for drafting a token, in that for a step without drafts: in the package's own
# model and its draft in int8, where it is most of the time.
_VERIFYING, _DRAFTING = 2.0, 1.25
# What is believed at first, and how fast what was seen is forgotten, by the token.
_STOOD, _TRIED, _KEPT = 2.8, 4.0, 0.93
_FIRST_PAUSE, _LONGEST_PAUSE = 8, 48
# The share for which drafts must pay for one to be tried.
_HOPED_FOR = 0.9


@dataclass(eq=False)
class Kept:
    """A number of tokens that outlasts a request."""

    count: float | None = None


class Pace(ABC):
    """Of one request, asked before each round."""

    @abstractmethod
    def count(self, company: int = 1) -> int:
        """How many tokens to draft now, 0: none, while so many requests run."""

    def learn(self, proposed: int, stood: int) -> None:
        """Of the tokens proposed, one or more, so many stood."""
        return


class Constant(Pace):
    """Always as many."""

    def __init__(self, count: int) -> None:
        self._count = count

    def count(self, company: int = 1) -> int:
        """As many."""
        return self._count


class Heuristic(Pace):
    """Two more where all have stood, else one less.

    Args:
        count: how many at first.
        kept: where the number is kept for the next request, which then starts with it.

    Source: https://huggingface.co/docs/transformers/main_classes/text_generation (num_assistant_tokens_schedule)
    """

    def __init__(self, count: int, kept: Kept | None = None) -> None:
        self._count = float(count) if kept is None or kept.count is None else kept.count
        self._memory = kept

    def count(self, company: int = 1) -> int:
        """As things stand."""
        return int(self._count)

    def learn(self, proposed: int, stood: int) -> None:
        """Adapt."""
        self._count = self._count + 2 if stood == proposed else max(1.0, self._count - 1)
        if self._memory is not None:
            self._memory.count = self._count


@dataclass(frozen=True)
class Costs:
    """What things take, in passes of the model over one token of one request, of which the host's work is no part.

    None of it is timed when it is used: the same request drafts the same on any day.
    """

    free_rows: int = 8  # how many rows a pass takes in about the time of one
    host: float = 0.0  # the host's work for a request in a pass: its strategy, what is read, what is answered
    row: float = 0.0  # choosing from a row outside the pass
    draft: float = 0.0  # a drafted token's pass, for one request alone
    draft_host: float = 0.0  # the host's work for it

    def plain(self, company: int) -> float:
        """A step without drafts while so many requests run."""
        return self._pass(company) + company * (self.host + self.row)

    def round(self, company: int, count: int) -> float:
        """Drafting so many tokens, and verifying them."""
        drafting = self.draft * self._pass(company) + company * (
            self.draft_host * _DRAFTING + self.row * (self.draft > 0)
        )
        verifying = self._pass(company * (count + 1)) + company * (self.host * _VERIFYING + self.row * (count + 1))
        return count * drafting + verifying

    def _pass(self, rows: int) -> float:
        return max(1.0 + rows * _ROW_COST, _REST + rows / self.free_rows)


class Adaptive(Pace):
    """As many as give the most tokens for their cost, if each stands with the share `a` of those before that did.

        tokens(k) = (1 - a**(k + 1)) / (1 - a);  cost(k): verifying k + 1 rows, and drafting k tokens before

    (Leviathan et al., 2023, arXiv:2211.17192, theorem 3.8), where n requests run and a pass over r rows costs about
    max(1, r / `free_rows`), and a little more. Where none pay, one is tried after a pause, and pauses double when it
    falls, up to `_LONGEST_PAUSE` tokens, until drafts pay again.

    Args:
        most: the most.
        costs: what drafting and verifying take.
        least_gain: how many times as fast as without drafts it must be to be worth it.
    """

    def __init__(self, most: int, costs: Costs, least_gain: float = 1.0) -> None:
        self._most, self._costs, self._least_gain = most, costs, least_gain
        self._stood, self._tried = _STOOD, _TRIED
        self._pause, self._waited = _FIRST_PAUSE, 0
        self._known: tuple[float, int] | None = None  # the share and the company that `_best` is for
        self._best = 0
        self._hopeful: tuple[int, bool] = (0, False)  # a company, and whether drafts can pay in it at all

    def count(self, company: int = 1) -> int:
        """The best number, or 1 at the end of a pause."""
        share = self._stood / self._tried
        if self._known != (share, company):
            self._known, self._best = (share, company), self._optimum(share, company)
        if self._best:
            return self._best
        self._waited += 1
        return int(self._waited > self._pause and self._can_pay(company))

    def learn(self, proposed: int, stood: int) -> None:
        """Adapt."""
        for outcome in [1] * stood + [0] * (stood < proposed):
            self._stood = self._stood * _KEPT + outcome
            self._tried = self._tried * _KEPT + 1
        if self._best:
            self._pause = _FIRST_PAUSE
        elif stood < proposed:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._waited = 0

    def _can_pay(self, company: int) -> bool:
        if self._hopeful[0] != company:
            self._hopeful = company, self._optimum(_HOPED_FOR, company) > 0
        return self._hopeful[1]

    def _optimum(self, share: float, company: int) -> int:
        plain, gain, tokens = self._costs.plain(company), 1.0, 1.0
        best, best_rate, last = 0, self._least_gain, 0.0
        for count in range(1, self._most + 1):
            gain *= share
            tokens += gain
            rate = tokens * plain / self._costs.round(company, count)
            if rate <= last:  # from here on it only falls
                break
            last = rate
            if rate > best_rate:
                best, best_rate = count, rate
        return best
