"""What tells a torch model's weights from those of another: a few numbers of each, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from loquent.torch.adapters.layer import AdaptedLinear
from loquent.torch.lending import canonical_parameters
from loquent.weights import sampled_rows

if TYPE_CHECKING:
    from loquent.torch.causal import CausalLM


Sample = tuple[str, str, NDArray[np.float32]]


def sampled_weights(model: CausalLM) -> Iterator[Sample]:
    """Each weight's canonical name, its type, and some of its rows; all of a vector. Adapters count where they act.

    A float32 model's are those of the native one with the same weights.
    """
    parameters = _without_tied_head(model)
    for path, layer in model.named_modules():
        if isinstance(layer, AdaptedLinear):
            for index, part in enumerate(layer.updates(*layer.active)):
                parameters[f"{path}.{index}.{part.start}.lora_A"] = part.lora_A
                parameters[f"{path}.{index}.{part.start}.lora_B"] = part.lora_B.detach() * part.scaling
    return (_sampled(name, weight) for name, weight in parameters.items())


def sampled_base_weights(model: CausalLM) -> Iterator[Sample]:
    """The same of the weights that training leaves as they are, adapters left out: what an adapter is trained on."""
    parameters = _without_tied_head(model)
    return (_sampled(name, weight) for name, weight in parameters.items() if not weight.requires_grad)


def _without_tied_head(model: CausalLM) -> dict[str, Tensor]:
    parameters: dict[str, Tensor] = {**canonical_parameters(model)}
    if model.decoder.head.tied:
        parameters.pop("head.weight", None)
    return parameters


def _sampled(name: str, weight: Tensor) -> Sample:
    some = weight.detach()
    if some.dim() == 2:
        some = some[sampled_rows(len(some))]
    kind = str(weight.dtype).removeprefix("torch.") if weight.dim() == 2 else "float32"
    return name, kind, some.float().cpu().numpy()
