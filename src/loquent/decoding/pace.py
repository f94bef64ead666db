"""Pace: how many tokens to draft next, from how many of those before have stood; nothing here depends on the clock.

What a request drafts must depend on the request alone: sampled tokens depend on which of them were drafted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

# What one more row in a pass costs, in passes over one row, while the weights' way from memory takes most of it; and
# what remains of a pass over one where computing takes most.
_ROW_COST, _REST = 0.03, 0.3
# What is believed at first, and how fast what was seen is forgotten, by the token.
_STOOD, _TRIED, _KEPT = 2.8, 4.0, 0.93
_FIRST_PAUSE = 8


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


class Adaptive(Pace):
    """As many as give the most tokens for their cost, if each stands with the share `a` of those before that did.

        tokens(k) = (1 - a**(k + 1)) / (1 - a);  cost(k) = pass(n * (k + 1)) + k * (cost of a drafted token) * pass(n)

    (Leviathan et al., 2023, arXiv:2211.17192, theorem 3.8), where n requests run and a pass over r rows costs about
    max(1, r / `free_rows`), and a little more. Where none pay, one is tried after a pause, and pauses double while it
    falls.

    Args:
        most: the most.
        cost: what drafting a token costs, in passes of the model over one token.
        free_rows: how many rows a pass takes in about the time of one.
    """

    def __init__(self, most: int, cost: float, free_rows: int) -> None:
        self._most, self._cost, self._free_rows = most, cost, free_rows
        self._stood, self._tried = _STOOD, _TRIED
        self._pause, self._waited = _FIRST_PAUSE, 0
        self._known: tuple[float, int] | None = None  # the share and the company that `_best` is for
        self._best = 0

    def count(self, company: int = 1) -> int:
        """The best number, or 1 at the end of a pause."""
        share = self._stood / self._tried
        if self._known != (share, company):
            self._known, self._best = (share, company), self._optimum(share, company)
        if self._best:
            return self._best
        self._waited += 1
        return int(self._waited > self._pause and self._optimum(1.0, company) > 0)

    def learn(self, proposed: int, stood: int) -> None:
        """Adapt."""
        for outcome in [1] * stood + [0] * (stood < proposed):
            self._stood = self._stood * _KEPT + outcome
            self._tried = self._tried * _KEPT + 1
        if not self._best:
            self._pause, self._waited = _FIRST_PAUSE if stood else 2 * self._pause, 0

    def _optimum(self, share: float, company: int) -> int:
        plain, gain, tokens = self._pass(company), 1.0, 1.0
        best, best_rate = 0, 1.0
        for count in range(1, self._most + 1):
            gain *= share
            tokens += gain
            rate = tokens * plain / (self._pass(company * (count + 1)) + count * self._cost * plain)
            if rate <= best_rate:
                break
            best, best_rate = count, rate
        return best

    def _pass(self, rows: int) -> float:
        """What a pass over rows costs, in passes over one."""
        return max(1.0 + rows * _ROW_COST, _REST + rows / self._free_rows)
