"""What beams of all kinds are made of: candidates, the finished ones and how they rank; nothing is searched here.

value(x) = (the sum of its tokens' log-probabilities) / generated ** length_penalty
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from loquent.decoding.stopping import Reason
from loquent.decoding.task import Hypothesis, Task
from loquent.decoding.trace import Node
from loquent.decoding.wants import Candidates
from loquent.errors import ArgumentError

EarlyStopping = bool | Literal["never"]

# Scores that agree to so many decimals count as equal, and the tokens decide: sums of float32 numbers differ in their
# last digits with the company that a request has, and a tie must not fall one way alone and another way in a batch.
DECIMALS = 5


class Candidate(NamedTuple):
    """A live beam's extension by one token: which beam, all of its generated tokens, and their log-probability."""

    parent: int
    tokens: tuple[int, ...]
    score: float
    gain: float = 0.0  # the last token's part of it

    def value(self, length: int, penalty: float) -> float:
        """What it counts for when `length` tokens long, without the digits that depend on company."""
        return round(self.score, DECIMALS) / float(length**penalty)

    @property
    def order(self) -> tuple[float, tuple[int, ...]]:
        """What equally long candidates are sorted by, best first."""
        return -round(self.score, DECIMALS), self.tokens


Ended = tuple[Candidate, Reason]
Live = tuple[Candidate, Reason | None]
_CUT: tuple[Reason, ...] = ("time", "length")


@dataclass(frozen=True)
class Ranking:
    """How hypotheses compare, and when none can come that is among the best `width`."""

    width: int
    length_penalty: float
    early_stopping: EarlyStopping
    longest: int  # how many tokens may be generated

    def order(self, ended: Ended) -> tuple[float, tuple[int, ...]]:
        """What finished ones are sorted by, best first."""
        candidate, _ = ended
        return -candidate.value(len(candidate.tokens), self.length_penalty), candidate.tokens

    def attainable(self, candidate: Candidate) -> float:
        """The value that a continuation could have if every further token were certain."""
        hopeful = self.early_stopping == "never" and self.length_penalty > 0
        return candidate.value(self.longest if hopeful else len(candidate.tokens), self.length_penalty)


@dataclass(eq=False)
class Finished:
    """The best finished hypotheses, best first."""

    ranking: Ranking
    best: list[Ended] = field(default_factory=list)

    def add(self, ended: Iterable[Ended]) -> None:
        """Keep those that are among the best."""
        new = list(ended)
        if new:
            self.best = sorted([*self.best, *new], key=self.ranking.order)[: self.ranking.width]

    def are_final(self, rival: Candidate) -> bool:
        """Whether there are as many as are wanted, and none of them gives way to what becomes of `rival`."""
        if len(self.best) < self.ranking.width:
            return False
        worst = -self.ranking.order(self.best[-1])[0]
        return self.ranking.early_stopping is True or self.ranking.attainable(rival) <= worst


def pool_size(task: Task, width: int) -> int:
    """How many candidates a step weighs, so that `width` of them can go on whatever ends."""
    return max(2, 1 + len(task.decoding.stopping.eos)) * width


def extensions(beams: Items[Candidate], answers: Items[Candidates], count: int, first: int = 0) -> list[Candidate]:
    """The best `count` candidates of all beams, which are equally long, best first; beams are numbered from `first`."""
    # In the order of `Candidate.order`; tokens are only put together for those that stay.
    pool = sorted(
        (-round(beam.score + gain, DECIMALS), beam.tokens, token, parent, gain)
        for parent, (beam, answer) in enumerate(zip(beams, answers))
        for token, gain in zip(answer.tokens.tolist(), answer.scores.tolist())
        if gain > -math.inf
    )
    return [
        Candidate(first + parent, (*tokens, token), beams[parent].score + gain, gain)
        for _, tokens, token, parent, gain in pool[:count]
    ]


def divided(task: Task, pool: Items[Candidate], width: int) -> tuple[list[Ended], list[Live]]:
    """Those of a pool that have ended, of its best `width`, and the best `width` of those that have not.

    Diverse and constrained beams go by transformers' older rules: what has no time or room to go on takes its place
    among the live ones, and becomes a hypothesis only if those that have ended are not final (`cut_off`).
    """
    weighed = [(candidate, task.ends(candidate.tokens)) for candidate in pool]
    ended = [(candidate, reason) for candidate, reason in weighed[:width] if reason and reason not in _CUT]
    live = [(candidate, reason) for candidate, reason in weighed if reason is None or reason in _CUT]
    return ended, live[:width]


def cut_off(live: Items[Live]) -> list[Ended]:
    """The beams, if none of them has time or room to go on; else none."""
    ended = [(candidate, reason) for candidate, reason in live if reason]
    return ended if len(ended) == len(live) else []


def settle(task: Task, beams: Items[Candidate], finished: Finished) -> None:
    """Give out the beginning that the live beams and the best finished hypothesis share: any of these may win.

    Another finished one cannot, since the best gives way only to what a live beam becomes.
    """
    rivals = [beam.tokens for beam in beams] + [ended.tokens for ended, _ in finished.best[:1]]
    known = length = len(task.output)  # they share it, being made of those that did
    shortest = min(map(len, rivals))
    while length < shortest and len({tokens[length] for tokens in rivals}) == 1:
        length += 1
    if length > known:
        task.settle(rivals[0][:length])


def told(
    pool: Items[Candidate], kept: Items[Candidate], ended: Items[Ended], *, first: int = 0, base: int = 0
) -> tuple[Node, ...]:
    """What became of a step's candidates, for the trace.

    Args:
        pool: the candidates, best first.
        kept: those that go on, in the order in which they are read.
        ended: those that became hypotheses.
        first: the number of the first beam that they may extend.
        base: its lane.
    """
    lanes = {beam.tokens: base + lane for lane, beam in enumerate(kept)}
    reasons = {candidate.tokens: reason for candidate, reason in ended}
    return tuple(
        Node(
            token=each.tokens[-1],
            log_probability=each.gain,
            score=each.score,
            fate="kept" if each.tokens in lanes else "finished" if each.tokens in reasons else "pruned",
            parent=each.parent - first + (base if len(each.tokens) > 1 else 0),
            lane=lanes.get(each.tokens),
            reason=reasons.get(each.tokens),
        )
        for each in pool
    )


def report(task: Task, finished: Finished) -> None:
    """Rank the best `task.decoding.returned` hypotheses.

    Raises:
        ArgumentError: there are fewer.
    """
    if len(finished.best) < task.decoding.returned:
        raise ArgumentError(
            f"the rules leave {len(finished.best)} continuations, where num_return_sequences={task.decoding.returned} "
            "are asked for. Relax bad_words_ids, suppress_tokens or the processors, or ask for fewer."
        )
    penalty = finished.ranking.length_penalty
    task.rank(
        [
            Hypothesis(best.tokens, reason, best.score / len(best.tokens) ** penalty)
            for best, reason in finished.best[: task.decoding.returned]
        ]
    )
