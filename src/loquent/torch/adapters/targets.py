"""Which outputs of which of our linear layers a checkpoint's linear layer is: read from the family's names.

Our layers fuse what checkpoints keep apart (queries, keys and values; gate and up), and order outputs in one way, where
checkpoints have several. An adapter names the checkpoint's layers, so that its B has rows for a run of ours, in the
order that the table of names gives a bias of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from loquent.config.lora import ALL_LINEAR, LoraConfig
from loquent.config.module_patterns import ends_with
from loquent.errors import ArgumentError, hint
from loquent.names import Layout, Piece
from loquent.torch.adapters.layer import AdaptedLinear

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel

_WEIGHT = ".weight"
_HEAD = "head."
_FUSED = "attention.qkv.weight"


@dataclass(frozen=True)
class Target:
    """A linear layer as the checkpoint has it.

    name: what the checkpoint calls it, as "model.layers.0.self_attn.q_proj".
    short_name: that without what checkpoints with a head put before it.
    module: our layer's path in the model.
    start, stop: which of its outputs these are.
    inputs: how many inputs it has.
    layout: how the checkpoint lays it out.
    """

    name: str
    short_name: str
    module: str
    start: int
    stop: int
    inputs: int
    layout: Layout

    @property
    def outputs(self) -> int:
        """How many outputs it has."""
        return self.stop - self.start

    @property
    def leaf(self) -> str:
        """The last word of its name, which no other has of those that share our layer."""
        return self.name.rpartition(".")[2]

    @property
    def is_head(self) -> bool:
        """Whether it gives logits."""
        return self.name == self.short_name and self.module == "head"

    @property
    def is_transposed(self) -> bool:
        """Whether the checkpoint keeps it as (inputs, outputs)."""
        return self.layout.shape_of_theirs((1, 2)) == (2, 1)

    def to_ours(self, rows: Tensor) -> Tensor:
        """Rows for the checkpoint's outputs, in the order of ours."""
        return _ordered(rows, self.layout.to_ours(np.arange(self.outputs)))

    def to_theirs(self, rows: Tensor) -> Tensor:
        """Rows for our outputs, in the order of the checkpoint's."""
        return _ordered(rows, self.layout.to_theirs(np.arange(self.outputs)))


def linear_layers(model: PreTrainedModel) -> list[Target]:
    """All linear layers of a model, as its checkpoints have them; what replaced one is none."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [
        target
        for piece in model.family.names(model.config).pieces
        if piece.ours.endswith(_WEIGHT) and (prefix or not piece.ours.startswith(_HEAD))
        if (target := _target(model, piece, prefix)) is not None
    ]


def selected(layers: list[Target], config: LoraConfig) -> list[Target]:
    """Those of the linear layers that a config wants adapted."""
    if config.target_modules == ALL_LINEAR:
        layers = [layer for layer in layers if not layer.is_head]
    elif config.target_modules is None:
        layers = list(_queries_and_values(layers))
    return [layer for layer in layers if config.selects(layer.name)]


def chosen(layers: list[Target], config: LoraConfig) -> list[Target]:
    """The same, for a config that its user wrote just now.

    Raises:
        ArgumentError: it names what is none of them, or all in all none.
    """
    targets = config.target_modules
    named = () if targets is None or isinstance(targets, str) else targets
    _check_known(layers, [name for name in named if not any(ends_with(layer.name, name) for layer in layers)])
    found = selected(layers, config)
    if not found:
        raise ArgumentError(
            f"target_modules={targets!r} with exclude_modules={config.exclude_modules!r} and "
            f"layers_to_transform={config.layers_to_transform!r} leaves no linear layer of the model. "
            f"Their names are such as {layers[0].name!r}."
        )
    return found


def shortest_names(found: Collection[Target], layers: Iterable[Target]) -> tuple[str, ...]:
    """The names by which a config selects these of the model's layers and no others: last words where they suffice."""
    wanted = {target.name for target in found}
    words = sorted({target.leaf for target in found})
    if {layer.name for layer in layers if layer.leaf in words} == wanted:
        return tuple(words)
    return tuple(sorted(wanted))


def _target(model: PreTrainedModel, piece: Piece, prefix: str) -> Target | None:
    is_head = piece.ours.startswith(_HEAD)
    ours = piece.ours.removesuffix(_WEIGHT)
    path = ours if is_head else f"{prefix}{ours}"
    module = model.get_submodule(path)
    if type(module) not in (nn.Linear, AdaptedLinear):
        return None
    assert isinstance(module, nn.Linear)
    start, stop = piece.rows or (0, module.out_features)
    name = piece.theirs.removesuffix(_WEIGHT)
    return Target(name if is_head else f"{prefix}{name}", name, path, start, stop, module.in_features, piece.layout)


def _check_known(layers: list[Target], unknown: list[str]) -> None:
    if unknown:
        words = sorted({layer.leaf for layer in layers})
        raise ArgumentError(
            f"target_modules has {', '.join(map(repr, unknown))}, which no linear layer of this model is called. They "
            f"are {', '.join(words)}.{hint(unknown[0].rpartition('.')[2], words)}"
        )


def _queries_and_values(layers: Iterable[Target]) -> Iterator[Target]:
    """Of each fused attention projection the layers with the first outputs and the last."""
    fused = [layer for layer in layers if f"{layer.module}{_WEIGHT}".endswith(_FUSED)]
    last = {layer.module: layer.stop for layer in fused}
    return (layer for layer in fused if layer.start == 0 or layer.stop == last[layer.module])


def _ordered(rows: Tensor, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return rows[torch.from_numpy(order).to(rows.device)]
