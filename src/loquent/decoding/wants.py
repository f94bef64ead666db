"""What a strategy may ask of the rows that a read gives: plain data, answered for all requests at once.

A row is what the model says behind one token. A read of n tokens gives n of them; a want names how many of the last it
is about, and of how many it needs the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of the backend's library (numpy, torch, ...)."""


class Want:
    """Something to be known about the rows behind a read's tokens; each kind says of which rows."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Whose hidden states it needs; 0 is the embeddings' output, the last layer's are behind the final norm."""
        return ()

    def rows(self, tokens: int) -> int:
        """How many of the last of the read's `tokens` rows it is about."""
        raise NotImplementedError(f"{type(self).__name__} does not say which rows it is about")

    def scored(self, tokens: int) -> int:
        """How many of the last rows' logits it needs."""
        return self.rows(tokens)


class LastRow(Want):
    """Something about the row behind the last token."""

    def rows(self, tokens: int) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class Next(LastRow):
    """The next token after the read: drawn where the request samples, else the most likely. Answer: int."""


@dataclass(frozen=True)
class Weighed(LastRow):
    """The next token as `Next` gives it, with its log-probability and the `count` best ones after the rules.

    For the trace. Answer: Weighing.
    """

    count: int


@dataclass(frozen=True)
class Top(LastRow):
    """The `count` next tokens with the highest log-probabilities after the rules, and the scores of the tokens `also`.

    Answer: Candidates.
    """

    count: int
    also: tuple[int, ...] = ()


@dataclass(frozen=True)
class Likeliest(LastRow):
    """The `count` next tokens that are most probable once rules have acted on the logits.

    `Top` differs where a rule is not the same on log-probabilities, as the repetition penalty is not; its scores need
    not add up to probabilities. Answer: Candidates, whose scores are log-probabilities.
    """

    count: int


@dataclass(frozen=True)
class Draws(LastRow):
    """`count` different next tokens, drawn one after another by their log-probabilities after the rules.

    Each token's score plus a Gumbel number is its key; the tokens with the highest keys are the draws (Kool et al.,
    2019, arXiv:1903.06059), so that draws of several rows join by adding to their keys. `lane` tells the rows of one
    position apart: they draw different numbers. Answer: Candidates, with keys, by key.
    """

    count: int
    lane: int = 0


@dataclass(frozen=True)
class Scores(LastRow):
    """The whole row of log-probabilities after the rules. Answer: an array (vocabulary,) of the backend's library."""


@dataclass(frozen=True)
class Likelihood(Want):
    """The log-probability of each token of the read but the first, given those before; rules do not act.

    Answer: NDArray[float64] (tokens - 1,).
    """

    def rows(self, tokens: int) -> int:
        """All of them."""
        return tokens


@dataclass(frozen=True)
class Targets(Want):
    """How likely `tokens` are, each behind another one of the read's last rows; rules do not act.

    So the last of them need not be read. Answer: TargetScores.
    """

    tokens: tuple[int, ...]

    def rows(self, tokens: int) -> int:
        """One for each."""
        return len(self.tokens)


@dataclass(frozen=True)
class Hidden(Want):
    """Hidden states of some layers, behind the last token or behind `every` token of the read.

    Answer: a dict from layer to array (rows, width) of the backend's library.
    """

    of: tuple[int, ...]
    every: bool = False

    @property
    def layers(self) -> tuple[int, ...]:
        """Those asked for."""
        return self.of

    def rows(self, tokens: int) -> int:
        """One, or all."""
        return tokens if self.every else 1

    def scored(self, tokens: int) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class Rows(Want):
    """The logits behind the last `count` tokens, and those that the head makes of `lenses`, earlier layers' states.

    They are kept for `Select`. Answer: Block.
    """

    count: int = 1
    lenses: tuple[int, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Those looked at through the head."""
        return self.lenses

    def rows(self, tokens: int) -> int:
        """`count`."""
        return self.count


@dataclass(frozen=True)
class Propose(LastRow):
    """A token to draft: drawn where the request samples, else the most likely; rules act where `ruled`.

    Answer: Proposal; None where the rules leave no token.
    """

    ruled: bool = True
    drawn: bool = True  # where the request samples
    rated: bool = True  # whether its `confidence` is wanted


@dataclass(frozen=True)
class Verify(Want):
    """How many of the proposals at the end of the read stand, and the token behind the last of those.

    Greedily those stand that would have been chosen. Where the request samples, each stands with the probability that
    makes what comes out distributed as without drafts (Leviathan et al., 2023, arXiv:2211.17192). Answer: Verdict.
    """

    proposals: tuple[Proposal, ...]
    weighed: bool = False  # whether the verdict tells log-probabilities, for the trace

    def rows(self, tokens: int) -> int:
        """One before each proposal, and one behind the last."""
        return len(self.proposals) + 1


WANTS: tuple[type[Want], ...] = (
    *(Next, Weighed, Top, Likeliest, Draws, Scores, Likelihood, Targets, Hidden, Rows),
    *(Propose, Verify),
)


@dataclass(eq=False, slots=True)
class Candidates:
    """Tokens and their log-probabilities, best first; equal ones in the order of their ids."""

    tokens: NDArray[np.int64]  # (count,)
    scores: NDArray[np.float64]  # (count,)
    keys: NDArray[np.float64] | None = None  # (count,), of draws: what they are ordered by
    also: NDArray[np.float64] | None = None  # the scores of the tokens asked for by name


@dataclass(frozen=True, eq=False)
class TargetScores:
    """What the model makes of tokens that are given, row by row."""

    log_probabilities: NDArray[np.float64]  # (tokens,)
    likeliest: NDArray[np.bool_]  # (tokens,), whether none is more likely; of equal ones the first in the vocabulary


@dataclass(frozen=True, eq=False)
class Weighing:
    """A chosen token among the best ones; log-probabilities are of what it was chosen from."""

    token: int
    score: float  # its log-probability
    best: Candidates


@dataclass(eq=False)
class Block:
    """Raw logits of a sequence's last rows, which belong to the strategy; rules act when something is selected.

    A source may put others into a block of its own, and names the model's as `raw` there.
    """

    logits: Array  # (rows, vocabulary)
    lenses: Mapping[int, Array]  # layer -> (rows, vocabulary)
    raw: Array | None = None  # (rows, vocabulary): what the model itself said, where `logits` are not that
    spare: Array | None = None  # (rows, vocabulary): what takes the place of a row of which rules leave no token

    def last(self, count: int) -> Block:
        """Its last `count` rows."""
        first = self.logits.shape[0] - count
        return Block(
            self.logits[first:, :],
            {layer: rows[first:, :] for layer, rows in self.lenses.items()},
            None if self.raw is None else self.raw[first:, :],
            None if self.spare is None else self.spare[first:, :],
        )


@dataclass(frozen=True, eq=False, slots=True)
class Odds:
    """A distribution over the tokens that can be drawn at all, which are few behind most rules."""

    tokens: NDArray[np.int64]  # (count,), ascending
    probabilities: NDArray[np.float64]  # (count,)

    @classmethod
    def of(cls, probabilities: NDArray[Any]) -> Odds:
        """Those of a whole vocabulary, (vocabulary,)."""
        tokens = np.flatnonzero(probabilities)
        return cls(tokens.astype(np.int64), probabilities[tokens].astype(np.float64))

    def probability(self, token: int) -> float:
        """A token's."""
        place = int(np.searchsorted(self.tokens, token))
        return float(self.probabilities[place]) if place < len(self.tokens) and self.tokens[place] == token else 0.0


@dataclass(frozen=True, eq=False)
class Proposal:
    """A drafted token, and where it was drawn, the distribution that it was drawn from."""

    token: int
    confidence: float = 1.0  # its probability in the draft
    odds: Odds | None = None  # None: the draft had no choice


@dataclass(frozen=True)
class Verdict:
    """The first `accepted` proposals stand, and `token` follows them."""

    accepted: int
    token: int
    # Where the want is `weighed`, log-probabilities after the rules: of each proposal behind those before it, and last
    # of `token`.
    scores: tuple[float, ...] = ()
