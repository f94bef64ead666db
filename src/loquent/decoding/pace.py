"""Pace: how many tokens to draft next, from how many of those before have stood; nothing here depends on the clock.

What a request drafts must depend on the request alone: sampled tokens depend on which of them were drafted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

# What one more token in a pass costs, in passes over one token, while the weights' way from memory takes most of it.
_ROW_COST = 0.1
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
    def count(self) -> int:
        """How many tokens to draft now; 0: none."""

    def learn(self, proposed: int, stood: int) -> None:
        """Of the tokens proposed, one or more, so many stood."""
        return


class Constant(Pace):
    """Always as many."""

    def __init__(self, count: int) -> None:
        self._count = count

    def count(self) -> int:
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

    def count(self) -> int:
        """As things stand."""
        return int(self._count)

    def learn(self, proposed: int, stood: int) -> None:
        """Adapt."""
        self._count = self._count + 2 if stood == proposed else max(1.0, self._count - 1)
        if self._memory is not None:
            self._memory.count = self._count


class Adaptive(Pace):
    """As many as give the most tokens for their cost, if each stands with the share `a` of those before that did.

        tokens(k) = (1 - a**(k + 1)) / (1 - a);  cost(k) = 1 + k * (cost of a drafted token + cost of a row)

    (Leviathan et al., 2023, arXiv:2211.17192, theorem 3.8.) Where none pay, one is tried after a pause, and pauses
    double while it falls.

    Args:
        most: the most.
        cost: what drafting a token costs, in passes of the model over one token.
    """

    def __init__(self, most: int, cost: float) -> None:
        self._most, self._cost = most, cost + _ROW_COST
        self._stood, self._tried = _STOOD, _TRIED
        self._pause, self._waited = _FIRST_PAUSE, 0
        self._best = self._optimum()

    def count(self) -> int:
        """The best number, or 1 at the end of a pause."""
        if self._best:
            return self._best
        self._waited += 1
        return int(self._waited > self._pause)

    def learn(self, proposed: int, stood: int) -> None:
        """Adapt."""
        for outcome in [1] * stood + [0] * (stood < proposed):
            self._stood = self._stood * _KEPT + outcome
            self._tried = self._tried * _KEPT + 1
        was_paused = not self._best
        self._best = self._optimum()
        if was_paused:
            if stood:
                self._best, self._pause = max(1, self._best), _FIRST_PAUSE
            else:
                self._pause *= 2
            self._waited = 0

    def _optimum(self) -> int:
        share, tokens, gain = self._stood / self._tried, 1.0, 1.0
        best, best_rate = 0, 1.0
        for count in range(1, self._most + 1):
            gain *= share
            tokens += gain
            rate = tokens / (1 + count * self._cost)
            if rate <= best_rate:
                break
            best, best_rate = count, rate
        return best
