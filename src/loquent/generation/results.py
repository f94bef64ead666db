"""Results: hypotheses as the padded ids that `generate()` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Hypothesis
from loquent.generation.prompts import Prompts


def padded(
    prompts: Prompts, owners: Sequence[int], results: Sequence[Hypothesis], pad: int, healed: Sequence[int]
) -> NDArray[np.int64]:
    """The prompts' columns, then each result's tokens, then padding: (rows, length).

    `owners[i]` is the prompt of result i. The first tokens of rows that were `healed`, one or none for each prompt,
    take their places in the prompts' columns.
    """
    columns, own = prompts.columns[list(owners)], [healed[owner] for owner in owners]
    new = np.full((len(results), max(len(result.tokens) - at for result, at in zip(results, own))), pad, np.int64)
    for row, (result, at) in enumerate(zip(results, own)):
        new[row, : len(result.tokens) - at] = result.tokens[at:]
        if at and result.tokens:
            columns[row, prompts.last[owners[row]]] = result.tokens[0]
    return np.concatenate([columns, new], axis=1)


def tensor_like(prompts: Prompts, values: Any) -> Any:
    """Values as a torch tensor where the caller's tensors are, or as an array."""
    if not prompts.as_tensors:
        return np.asarray(values)
    import torch

    return torch.tensor(values, device=prompts.device)
