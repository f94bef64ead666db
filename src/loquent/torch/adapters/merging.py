"""Adapters put into the weights, and taken out again exactly; a merged model is a plain one to whoever runs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from loquent.errors import ArgumentError
from loquent.torch.adapters.attach import Adapters, check_apart, check_unmerged, checked_names, forget, known, refresh
from loquent.torch.adapters.layer import adapted_layers

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel


@dataclass(frozen=True)
class Merged:
    """What merging did.

    layers: how many of the model's linear layers have other weights now.
    lost: how much of the update was lost where the weights' type could not hold it: the norm of what rounding changed,
        over the norm of the update. Nearly 0 for float32; where it is near 1, a half type has swallowed the adapter.
    """

    layers: int
    lost: float


def merge(model: PreTrainedModel, names: str | Iterable[str] | None = None) -> Merged:
    """Put adapters into the weights: the active ones, or those named. Sums are taken in float32 and rounded once.

    The weights from before are kept, so that `unmerge` restores them bit for bit.

    Raises:
        ArgumentError: there is no such adapter, some are merged already, or the head is adapted that shares its memory
            with the embedding.
    """
    state = known(model)
    wanted = state.active if names is None else checked_names(state, names)
    check_unmerged(state, "merge others")
    check_apart(state, wanted)
    _check_untied(model, state, wanted)
    layers = [layer for layer in adapted_layers(model.modules()) if layer.updates(*wanted)]
    norms = [layer.merge(wanted) for layer in layers]
    state.merged = wanted
    refresh(model, state)
    added, lost = (sum(norm) for norm in zip(*norms)) if norms else (0.0, 0.0)
    return Merged(len(layers), sqrt(lost / added) if added else 0.0)


def unmerge(model: PreTrainedModel) -> None:
    """Make the weights what they were before merging, bit for bit; the active adapters act again.

    Raises:
        ArgumentError: nothing is merged.
    """
    state = known(model)
    if not state.merged:
        raise ArgumentError("No adapter is merged. merge_adapter() merges the active ones.")
    for layer in adapted_layers(model.modules()):
        layer.unmerge()
    state.merged = ()
    refresh(model, state)


def merge_and_unload(model: PreTrainedModel, names: str | Iterable[str] | None = None) -> Merged | None:
    """Put adapters into the weights for good, and make the model a plain one.

    What is merged already stays so, and no other is added to it.

    Raises:
        ArgumentError: as `merge`.
    """
    merged = None if known(model).merged and names is None else merge(model, names)
    forget(model)
    return merged


def _check_untied(model: PreTrainedModel, state: Adapters, names: Iterable[str]) -> None:
    adapts_head = any(target.is_head for name in names for target in state.targets[name])
    if adapts_head and model.decoder.head.tied:
        raise ArgumentError(
            "The adapter's head cannot be merged: the head shares its memory with the token embedding, which is not "
            "adapted. Load the model with tie_word_embeddings=False, or leave the adapter unmerged."
        )
