"""Greedy decoding and multinomial sampling: one sequence, one token at a time.

    x[t] = argmax p(. | x[<t]),  or  x[t] ~ p(. | x[<t]) after the rules

Which of the two is the request's own setting; the engine selects for the rows of all requests at once.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.trace import ALTERNATIVES, Chosen, Node
from loquent.decoding.wants import LastRow, Next, Weighed, Weighing


def one_by_one(task: Task) -> Strategy:
    """Commits each next token until the output ends.

    A context that slides starts again with its younger half when it is full, so that a token costs two reads on
    average; positions count from the new beginning.
    """
    sequence, context, score = task.open(), task.decoding.context, 0.0
    want: LastRow = Weighed(ALTERNATIVES + 1) if task.note else Next()
    feed: Items[int] | NDArray[np.int64] = task.prompt
    while True:
        if context and len(sequence) + len(feed) > context:
            feed = np.concatenate([sequence.tokens, feed])[-(context // 2 + 1) :]
            memory = sequence.memory.fork()  # by the length of the text, of which the sequence holds the end
            sequence.close()
            sequence = task.open()
            sequence.memory = memory
        feed = answers = yield [Read(sequence, feed, want)]  # the answers: one token
        if task.note:
            feed = [answers[0].token]
        ended = task.commit(feed)
        if task.note:
            task.note(chosen(task, answers[0], score))
            score += answers[0].score
        if ended:
            return


def chosen(task: Task, weighing: Weighing, before: float) -> Chosen:
    """What the trace tells of the token that has just been committed; `before` is the score without it."""
    pairs = zip(weighing.best.tokens.tolist(), weighing.best.scores.tolist())
    return Chosen(
        len(task.output) - 1,
        Node(
            token=weighing.token,
            log_probability=weighing.score,
            score=before + weighing.score,
            fate="finished" if task.reason else "kept",
            lane=None if task.reason else 0,
            reason=task.reason,
        ),
        tuple(
            Node(token=token, log_probability=gain, score=before + gain, fate="pruned")
            for token, gain in pairs
            if token != weighing.token and gain > -np.inf
        )[:ALTERNATIVES],
    )
