"""Results: hypotheses as the padded ids that `generate()` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loquent.decoding.task import Hypothesis
from loquent.generation.prompts import Prompts


@dataclass
class GenerateOutput:
    """What `generate(return_dict_in_generate=True)` returns."""

    sequences: Any  # (rows, length)
    sequences_scores: Any = None  # (rows,), where the strategy ranks by a score

    def __getitem__(self, key: str | int) -> Any:
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return fields[key] if isinstance(key, str) else list(fields.values())[key]


def padded(prompts: Prompts, results: Sequence[Hypothesis], pad: int, healed: Sequence[int] = ()) -> NDArray[np.int64]:
    """The prompts' columns, then each result's tokens, then padding: (rows, length).

    The first tokens of rows that were `healed`, one or none for each prompt, take their places in the prompts' columns.
    """
    copies = len(results) // len(prompts.rows)
    columns = np.repeat(prompts.columns, copies, axis=0)
    own = [healed[row // copies] if healed else 0 for row in range(len(results))]
    new = np.full((len(results), max(len(result.tokens) - at for result, at in zip(results, own))), pad, np.int64)
    for row, (result, at) in enumerate(zip(results, own)):
        new[row, : len(result.tokens) - at] = result.tokens[at:]
        if at and result.tokens:
            columns[row, prompts.last[row // copies]] = result.tokens[0]
    return np.concatenate([columns, new], axis=1)


def tensor_like(prompts: Prompts, values: Any) -> Any:
    """Values as a torch tensor where the caller's tensors are, or as an array."""
    if not prompts.as_tensors:
        return np.asarray(values)
    import torch

    return torch.tensor(values, device=prompts.device)
