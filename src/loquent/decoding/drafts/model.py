"""A draft by a smaller model of the same vocabulary, or by the first blocks of the model itself (early exit).

Early exit as in LayerSkip (Elhoushi et al., 2024, arXiv:2404.16710): its model is the request's own, cut short.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.cache import Sequence
from loquent.decoding.drafts.base import Draft, Drafting
from loquent.decoding.task import Read, Task
from loquent.decoding.wants import Proposal, Propose


class ModelDraft(Draft):
    """Reads ahead with another model: the request's rules act on its rows, and it draws where the request samples.

    Args:
        task: the request.
        reader: the other model, as the engine opened it.
        threshold: a token of which the draft is less certain than this is the last of a draft.
    """

    def __init__(self, task: Task, reader: Any, threshold: float) -> None:
        self._ahead = Ahead(task.open(reader))
        self._want = Propose(rated=threshold > 0)
        self._threshold, self._ends = threshold, frozenset(task.decoding.stopping.eos)

    def propose(self, text: NDArray[Any], count: int) -> Drafting:
        """One token after the other, each the other model's own next one."""
        sequence = self._ahead.sequence
        feed: Items[int] | NDArray[np.int64] = self._ahead.catch_up(text)
        proposals: list[Proposal] = []
        while True:
            [proposal] = yield [Read(sequence, feed, self._want)]
            if proposal is None:
                return proposals
            proposals.append(proposal)
            token = proposal.token
            if len(proposals) == count or token in self._ends or proposal.confidence < self._threshold:
                return proposals
            feed = [token]


class Ahead:
    """A sequence that has read a text and drafts behind it, and goes on from what came of them."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence

    def catch_up(self, text: NDArray[Any]) -> NDArray[Any]:
        """Rewinds to what the sequence has in common with a text, and gives the rest, at least a token, to be read."""
        held = self.sequence.tokens
        count = min(len(held), len(text) - 1)
        differing = np.flatnonzero(held[:count] != text[:count])
        known = int(differing[0]) if len(differing) else count
        if known < len(held):
            self.sequence.rewind(known)
        return text[known:]
