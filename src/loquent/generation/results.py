"""Results: hypotheses as the padded ids that `generate()` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Hypothesis
from loquent.generation.prompts import Prompts


def padded(prompts: Prompts, owners: Sequence[int], results: Sequence[Hypothesis], pad: int) -> NDArray[np.int64]:
    """The prompts' columns, then each result's tokens, then padding: (rows, length).

    `owners[i]` is the prompt of result i.
    """
    new = np.full((len(results), max(len(result.tokens) for result in results)), pad, np.int64)
    for row, result in zip(new, results):
        row[: len(result.tokens)] = result.tokens
    return np.concatenate([prompts.columns[list(owners)], new], axis=1)


def tensor_like(prompts: Prompts, values: Any) -> Any:
    """Values as a torch tensor where the caller's tensors are, or as an array."""
    if not prompts.as_tensors:
        return np.asarray(values)
    import torch

    return torch.tensor(values, device=prompts.device)
