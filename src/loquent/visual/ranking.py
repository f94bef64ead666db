"""The final ranking: what each result's score is made of; it ranks nothing itself."""

from __future__ import annotations

from dataclasses import dataclass

from loquent.decoding.task import Hypothesis
from loquent.decoding.trace import Trace
from loquent.visual.places import places_of
from loquent.visual.tree import Tree, length_penalty


@dataclass(frozen=True)
class Ranked:
    """A result: `score` = `total` / `length` ** `penalty`."""

    result: Hypothesis
    total: float  # the sum of its tokens' log-probabilities, as the strategy added them up
    penalty: float
    score: float

    @property
    def length(self) -> int:
        """How many tokens were generated, the last one included."""
        return len(self.result.tokens)

    @property
    def formula(self) -> str:
        """How the score comes about."""
        return f"{self.total:.3f} / {self.length}^{self.penalty:g}"


def ranking_of(trace: Trace, tree: Tree) -> list[Ranked]:
    """The results, best first."""
    penalty, ranked = length_penalty(trace), []
    for index, result in enumerate(trace.results):
        leaf, length = tree.leaves[index], max(len(result.tokens), 1)
        if leaf is not None:
            total = leaf.node.score
        elif result.score is not None:
            total = result.score * length**penalty
        else:
            total = sum(place.node.log_probability for place in places_of(trace, tree, index))
        score = total / length**penalty if result.score is None else result.score
        ranked.append(Ranked(result, total, penalty, score))
    return ranked
