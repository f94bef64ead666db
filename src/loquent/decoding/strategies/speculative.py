"""Speculative decoding: a draft guesses tokens, and the model verifies all of them in one pass.

(Leviathan et al., 2023, arXiv:2211.17192; Chen et al., 2023, arXiv:2302.01318.)

    x[t:t+k] ~ q;  keep the first n that stand (`decoding.verification`);  x[t+n] ~ p in place of the next, or behind

What comes out is what decoding without drafts gives: the same tokens greedily, the same distribution sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.decoding import trace
from loquent.decoding.drafts import Draft
from loquent.decoding.pace import Pace
from loquent.decoding.strategies.single import chosen
from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.wants import LastRow, Next, Proposal, Verdict, Verify, Weighed


def speculate(
    task: Task, *, draft: Callable[[Task], Draft], pace: Callable[[], Pace], source: str = "assistant"
) -> Strategy:
    """Commits what stands of each draft, and the token behind it, until the output ends.

    The prompt is read without a draft, so that the first token comes as soon as ever. `source` names the kind of draft
    in the trace.
    """
    sequence, drafted, paced, score = task.open(), draft(task), pace(), 0.0
    single: LastRow = Weighed(trace.ALTERNATIVES + 1) if task.note else Next()
    feed: Items[int] | NDArray[np.int64] = task.prompt
    while not task.reason:
        proposals: list[Proposal] = []
        room = task.decoding.stopping.max_new_tokens - len(task.output) - 1  # one more follows a draft
        # How many requests run may decide greedily, where what comes out does not depend on what is drafted.
        count = min(room, paced.count(1 if task.decoding.sampled else task.company)) if task.output else 0
        if count > 0:
            proposals = yield from drafted.propose(task.text(), count)
        if not proposals:
            [answer] = yield [Read(sequence, feed, single)]
            feed = [answer.token if task.note else answer]
            task.commit(feed)
            if task.note:
                task.note(chosen(task, answer, score))
                score += answer.score
            continue
        tokens = [proposal.token for proposal in proposals]
        [verdict] = yield [Read(sequence, [*feed, *tokens], Verify(tuple(proposals), weighed=bool(task.note)))]
        if verdict.accepted < len(tokens):
            sequence.rewind(len(sequence) - len(tokens) + verdict.accepted)
        paced.learn(len(tokens), verdict.accepted)
        feed, step = [verdict.token], len(task.output)
        task.commit([*tokens[: verdict.accepted], verdict.token])
        if task.note:
            event = _round(task, step, proposals, verdict, score, source)
            task.note(event)
            score = event.token.score if event.token else score


def _round(
    task: Task, step: int, proposals: list[Proposal], verdict: Verdict, score: float, source: str
) -> trace.Drafted:
    """What the trace tells of a round whose tokens, from `step` on, have just been committed; `score` is older."""
    committed = len(task.output) - step  # of the accepted ones and the one behind
    drafts = []
    before = score
    for index, (proposal, gain) in enumerate(zip(proposals, verdict.scores)):
        score += gain
        is_last = bool(task.reason) and index == committed - 1
        stands = index < min(verdict.accepted, committed)
        drafts.append(
            trace.Draft(
                token=proposal.token,
                log_probability=gain,
                score=score,
                fate=("finished" if is_last else "kept") if stands else "rejected",
                lane=0 if stands and not is_last else None,
                reason=task.reason if stands and is_last else None,
                confidence=proposal.confidence,
            )
        )
    token = None
    if committed > verdict.accepted:
        behind = drafts[verdict.accepted - 1].score if verdict.accepted else before
        token = trace.Node(
            token=verdict.token,
            log_probability=verdict.scores[-1],
            score=behind + verdict.scores[-1],
            fate="finished" if task.reason else "kept",
            lane=None if task.reason else 0,
            reason=task.reason,
        )
    return trace.Drafted(step, tuple(drafts), token, source)
