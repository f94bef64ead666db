"""Speculative decoding: a draft guesses tokens, and the model verifies all of them in one pass.

(Leviathan et al., 2023, arXiv:2211.17192; Chen et al., 2023, arXiv:2302.01318.)

    x[t:t+k] ~ q;  keep the first n that stand (`decoding.verification`);  x[t+n] ~ p in place of the next, or behind all

What comes out is what decoding without drafts gives: the same tokens greedily, the same distribution sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.drafts import Draft
from loquent.decoding.pace import Pace
from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.wants import Next, Proposal, Verify


def speculate(task: Task, *, draft: Callable[[Task], Draft], pace: Callable[[], Pace]) -> Strategy:
    """Commits what stands of each draft, and the token behind it, until the output ends.

    The prompt is read without a draft, so that the first token comes as soon as ever.
    """
    sequence, drafted, paced = task.open(), draft(task), pace()
    feed: Items[int] | NDArray[np.int64] = task.prompt
    while True:
        proposals: list[Proposal] = []
        room = task.decoding.stopping.max_new_tokens - len(task.output) - 1  # one more follows a draft
        count = min(room, paced.count()) if task.output else 0
        if count > 0:
            proposals = yield from drafted.propose(task.text(), count)
        if not proposals:
            feed = yield [Read(sequence, feed, Next())]  # the answers: one token
            if task.commit(feed):
                return
            continue
        tokens = [proposal.token for proposal in proposals]
        [verdict] = yield [Read(sequence, [*feed, *tokens], Verify(tuple(proposals)))]
        if verdict.accepted < len(tokens):
            sequence.rewind(len(sequence) - len(tokens) + verdict.accepted)
        paced.learn(len(tokens), verdict.accepted)
        feed = [verdict.token]
        if task.commit([*tokens[: verdict.accepted], verdict.token]):
            return
