"""Greedy decoding and multinomial sampling: one sequence, one token at a time.

    x[t] = argmax p(. | x[<t]),  or  x[t] ~ p(. | x[<t]) after the rules

Which of the two is the request's own setting; the engine selects for the rows of all requests at once.
"""

from __future__ import annotations

import numpy as np

from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.wants import Next


def one_by_one(task: Task) -> Strategy:
    """Commits each next token until the output ends.

    A context that slides starts again with its younger half when it is full, so that a token costs two reads on
    average; positions count from the new beginning.
    """
    sequence, feed = task.open(), task.prompt
    while True:
        if task.decoding.context and len(sequence) + len(feed) > task.decoding.context:
            feed = np.concatenate([sequence.tokens, feed])[-(task.decoding.context // 2 + 1) :]
            sequence.close()
            sequence = task.open()
        [token] = yield [Read(sequence, feed, Next())]
        if task.commit([token]):
            return
        feed = np.array([token], np.int64)
