"""Greedy decoding and multinomial sampling: one sequence, one token at a time.

    x[t] = argmax p(. | x[<t]),  or  x[t] ~ p(. | x[<t]) after the rules

Which of the two is the request's own setting; the engine selects for the rows of all requests at once.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Read, Strategy, Task
from loquent.decoding.wants import Next


def one_by_one(task: Task) -> Strategy:
    """Commits each next token until the output ends.

    A context that slides starts again with its younger half when it is full, so that a token costs two reads on
    average; positions count from the new beginning.
    """
    sequence, want, context = task.open(), Next(), task.decoding.context
    feed: Items[int] | NDArray[np.int64] = task.prompt
    while True:
        if context and len(sequence) + len(feed) > context:
            feed = np.concatenate([sequence.tokens, feed])[-(context // 2 + 1) :]
            memory = sequence.memory.fork()  # by the length of the text, of which the sequence holds the end
            sequence.close()
            sequence = task.open()
            sequence.memory = memory
        feed = yield [Read(sequence, feed, want)]  # the answers: one token
        if task.commit(feed):
            return
