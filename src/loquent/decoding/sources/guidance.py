"""Classifier-free guidance: away from what a negative prompt would be continued with (Sanchez et al., 2023).

    score(v) = log u(v) + scale * (log p(v) - log u(v)),  p behind the prompt, u behind the negative prompt

arXiv:2306.17806. Each sequence has a shadow that begins with the negative prompt and goes on with the same tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.arrays import Array, log_softmax, namespace
from loquent.decoding.sources.base import Part, Source
from loquent.decoding.task import Read, Task
from loquent.decoding.wants import Block, Rows


@dataclass(frozen=True, eq=False)
class Guidance(Source):
    """Guides by `scale`; 1 changes nothing, 0 leaves the `negative` prompt (n,), n >= 1, alone."""

    scale: float
    negative: NDArray[np.int64]

    def reads(self, task: Task, read: Read, rows: int) -> list[Read]:
        """What the shadow lacks of the negative prompt and the tokens behind the prompt."""
        sequence, prompt = read.sequence, len(task.prompt)
        behind = len(sequence) + len(read.tokens)
        if behind - rows + 1 < prompt:
            raise ValueError(f"guidance knows no scores before the prompt's end, of {prompt} tokens")
        if sequence.shadow is None:
            sequence.shadow = task.open(prompt=len(self.negative))
        new = np.concatenate([sequence.tokens, read.tokens])[prompt:]
        unread = np.concatenate([self.negative, new])[len(sequence.shadow) :]
        return [Read(sequence.shadow, unread, Rows(rows))]

    def change(self, part: Part) -> Block:
        """Both, as far apart as the scale says."""
        [shadow], block = part.beside, part.block
        unwanted = log_softmax(shadow.logits)
        spare = None if block.spare is None else self._guided(block.spare, unwanted)
        return replace(block, logits=self._guided(block.logits, unwanted), spare=spare)

    def _guided(self, logits: Array, unwanted: Array) -> Array:
        xp, wanted = namespace(logits), log_softmax(logits)
        dropped = wanted == -math.inf  # by an earlier source, and for good, whatever the scale
        guided = unwanted + self.scale * (xp.where(dropped, unwanted, wanted) - unwanted)
        return xp.where(dropped, wanted, guided)
