"""What the native backend needs of a torch model: whether it may read the weights in place, and where they are.

A plan computes what the composition says. Whatever makes a model compute something else (hooks, replaced or patched
layers, adapters that are not merged, active dropout, autocast) is seen, here or by `torch.fingerprint`, and such a
model runs in torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from loquent.engine.lending import Lent, Survey
from loquent.parts import Decoder
from loquent.torch.adapters.layer import AdaptedLinear, adapted_layers, without_adapters
from loquent.torch.fingerprint import deviation, watched_numbers
from loquent.weights import decoder_weights, head_weights

if TYPE_CHECKING:
    from loquent.torch.causal import CausalLM

_KINDS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def survey(model: CausalLM) -> Survey:
    """Whether a plan may run the model over its own memory, as it is now; it costs a look at each module and weight."""
    modules = list(model.modules())
    layers = adapted_layers(modules)
    modules = without_adapters(modules, layers)
    obstacle = _around(model) or _adapting(layers) or deviation(model, modules)
    if obstacle:
        return Survey(obstacle)
    places: list[Hashable] = [bool(model.pack_weights)]
    for module in modules:
        for weight in module._parameters.values():
            if weight is not None:
                obstacle = obstacle or _unreadable(weight)
                places.append((id(weight), weight.data_ptr(), weight.shape, weight.stride(), weight.dtype))
    return Survey(obstacle or _unlike_config(model), tuple(places))


def _around(model: CausalLM) -> str | None:
    """What speaks against a plan wherever the model computes what its composition says."""
    if model.device.type != "cpu":
        return f"its weights are on {model.device}"
    return "autocast is on" if torch.is_autocast_enabled("cpu") else None


def _adapting(layers: Iterable[AdaptedLinear]) -> str | None:
    """Whether adapters add to what layers compute; where they are merged or switched off, they do not."""
    return "its adapters are not merged" if any(layer.active for layer in layers) else None


def _unreadable(weight: Tensor) -> str | None:
    """Why a weight cannot be read in place."""
    if type(weight) is not nn.Parameter or weight.layout is not torch.strided:
        return f"its weights are {type(weight).__name__}"
    if weight.dtype not in _KINDS:
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    if weight.device.type != "cpu":
        return f"some of its weights are on {weight.device}"
    if weight.is_inference():
        return "its weights are inference tensors, whose changes cannot be seen"
    if weight.dim() > 1 and not _is_row_by_row(weight):
        return "its weights are not laid out row by row"
    return None


def _is_row_by_row(weight: Tensor) -> bool:
    rows, columns = weight.shape
    return (columns == 1 or weight.stride(1) == 1) and (rows == 1 or weight.stride(0) >= columns)


def _unlike_config(model: CausalLM) -> str | None:
    """Why the weights are not those of the composition, as after removing layers."""
    decoder, found = model.decoder, canonical_parameters(model)
    if decoder.head.tied:
        head = found.pop("head.weight", None)
        if head is None or head.data_ptr() != model.stack.tokens.weight.data_ptr():
            return "its head is not tied as its config says"
    shapes = {name: tuple(weight.shape) for name, weight in found.items()}
    return None if shapes == decoder_weights(decoder) | head_weights(decoder) else "its layers are not its config's"


def canonical_parameters(model: CausalLM) -> dict[str, nn.Parameter]:
    """All parameters by canonical name, tied ones under each of theirs; without adapters."""
    prefix = f"{model.base_model_prefix}."
    added: set[int] = set()
    if model.peft_config or model.base_model.peft_config:
        layers = adapted_layers(model.modules())
        added = {id(parameter) for layer in layers for parameter in layer.adapters.parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return {name.removeprefix(prefix): weight for name, weight in named if id(weight) not in added}


class ModelLoan:
    """The `loquent.engine.lending.Loan` of a torch model whose survey found no obstacle."""

    def __init__(self, model: CausalLM) -> None:
        self.packed = bool(model.pack_weights)
        self._decoder = model.decoder
        self._parameters = canonical_parameters(model)
        if model.decoder.head.tied:
            del self._parameters["head.weight"]
        self._weights = {name: _lent(weight) for name, weight in self._parameters.items()}
        self._samples = [_as_array(watched_numbers(weight)) for weight in self._parameters.values()]
        self._state = self._look()

    @property
    def decoder(self) -> Decoder:
        """What they are the weights of."""
        return self._decoder

    @property
    def weights(self) -> Mapping[str, Lent]:
        """By canonical name, a tied head left out."""
        return self._weights

    def changed(self) -> frozenset[str]:
        """Which weights hold other numbers than when this was last asked, as far as `watched_numbers` can tell."""
        (versions, numbers), (old_versions, old_numbers) = self._look(), self._state
        if versions == old_versions and numbers == old_numbers:
            return frozenset()
        self._state = versions, numbers
        names, start = set(), 0
        for index, (name, sample) in enumerate(zip(self._weights, self._samples)):
            stop = start + sample.nbytes
            if versions[index] != old_versions[index] or numbers[start:stop] != old_numbers[start:stop]:
                names.add(name)
            start = stop
        return frozenset(names)

    def as_array(self, rows: NDArray[np.float32]) -> Tensor:
        """Rows as a tensor over the same memory."""
        return torch.from_numpy(rows)

    def _look(self) -> tuple[list[int], bytes]:
        versions = [weight._version for weight in self._parameters.values()]
        return versions, b"".join([sample.tobytes() for sample in self._samples])


def _lent(weight: nn.Parameter) -> Lent:
    return Lent(_KINDS[weight.dtype], _as_array(weight.detach()))


def _as_array(numbers: Tensor) -> NDArray[Any]:
    # numpy has no bfloat16.
    return numbers.view(torch.int16).numpy().view(np.uint16) if numbers.dtype is torch.bfloat16 else numbers.numpy()
