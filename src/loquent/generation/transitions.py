"""Transition scores: what each generated token of an output scored; the model is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loquent.decoding.arrays import log_softmax, to_numpy
from loquent.errors import ArgumentError


def compute_transition_scores(
    sequences: Any, scores: Sequence[Any], beam_indices: Any = None, normalize_logits: bool = False
) -> Any:
    """The scores of the tokens that were chosen, from what `generate` returned for `output_scores=True`.

    Args:
        sequences: ids (rows, length).
        scores: for each new token (rows, vocabulary), or (beams, vocabulary).
        beam_indices: (rows, longest), of a beam search: the row of `scores[t]` that new token t was chosen from, and -1
            behind a row's end.
        normalize_logits: make log-probabilities of the scores first.

    Returns:
        (rows, longest) in float32, a tensor where `sequences` is one; 0 behind the end of a beam search's row. The sum
        of a row, divided by its length to the power of `length_penalty`, is the score of its sequence.

    Raises:
        ArgumentError: there are no scores, or they are fewer than the beam indices.

    Source: https://huggingface.co/docs/transformers/main_classes/text_generation
    """
    if not scores:
        raise ArgumentError(f"scores={scores!r} are not there. Pass those of generate(..., output_scores=True).")
    ids, steps = to_numpy(sequences), np.stack([to_numpy(step) for step in scores])  # (steps, lanes, vocabulary)
    if normalize_logits:
        steps = log_softmax(steps)
    if beam_indices is None:
        lanes = np.repeat(np.arange(steps.shape[1])[:, None], len(steps), axis=1)
    else:
        lanes = to_numpy(beam_indices)
        lanes = lanes[:, : int((lanes >= 0).sum(axis=1).max())]
    longest = lanes.shape[1]
    if lanes.shape[0] != ids.shape[0] or not longest <= min(len(steps), ids.shape[1]):
        raise ArgumentError(
            f"sequences {ids.shape} and scores ({len(steps)} of {steps.shape[1:]}) do not go together. Pass those of "
            "one output, with its beam_indices where it has them."
        )
    new = ids[:, ids.shape[1] - longest :]
    found = steps[np.arange(longest)[None, :], np.maximum(lanes, 0), new]
    found = np.where(lanes >= 0, found, np.float32(0))
    if not hasattr(sequences, "new_tensor"):
        return found
    return sequences.new_tensor(found, dtype=scores[0].dtype)
