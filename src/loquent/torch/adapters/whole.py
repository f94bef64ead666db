"""Modules that an adapter has whole (modules_to_save): its own parameters take the model's place while it acts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from loquent.config.module_patterns import ends_with
from loquent.errors import ArgumentError, hint
from loquent.names import Layout

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel

_HEAD = "head."
_TIED = ("head.weight", "tokens.weight")


@dataclass(frozen=True)
class Whole:
    """A tensor of such a module.

    name: what the checkpoint calls it, as "lm_head.weight".
    short_name: that without what checkpoints with a head put before it.
    path: our parameter's path in the model.
    layout: how the checkpoint lays it out.
    """

    name: str
    short_name: str
    path: str
    layout: Layout

    @property
    def is_of_head(self) -> bool:
        """Whether it is the head's."""
        return self.path.startswith(_HEAD)


def whole_tensors(model: PreTrainedModel, modules: Collection[str]) -> list[Whole]:
    """The tensors of the modules that have such names, or ends of names; of those that the model lacks none.

    Raises:
        ArgumentError: a module shares its memory with another, or is a part of one of ours.
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [whole for module in modules for whole in _of_module(model, module, prefix)]


def check_known(model: PreTrainedModel, modules: Collection[str]) -> None:
    """Refuse names of modules that the model does not have.

    Raises:
        ArgumentError: it lists some that it has.
    """
    for module in modules:
        if not whole_tensors(model, [module]):
            pieces = model.family.names(model.config).pieces
            words = {piece.theirs.rpartition(".")[0].rpartition(".")[2] for piece in pieces if piece.rows is None}
            raise ArgumentError(
                f"modules_to_save has {module!r}, which no module with weights of this model is called. They are "
                f"{', '.join(sorted(words))}.{hint(module, words)}"
            )


def put(model: PreTrainedModel, path: str, parameter: nn.Parameter) -> None:
    """Let a parameter take the place of the one at a path, of whose type and device it becomes."""
    owner, _, leaf = path.rpartition(".")
    module = model.get_submodule(owner)
    there = getattr(module, leaf)
    if there is not parameter:
        parameter.data = parameter.data.to(there.device, there.dtype)
        setattr(module, leaf, parameter)


def _of_module(model: PreTrainedModel, module: str, prefix: str) -> Iterator[Whole]:
    for piece in model.family.names(model.config).pieces:
        is_head = piece.ours.startswith(_HEAD)
        name = piece.theirs if is_head else f"{prefix}{piece.theirs}"
        if (is_head and not prefix) or not ends_with(name.rpartition(".")[0], module):
            continue
        if piece.rows is not None:
            raise ArgumentError(
                f"modules_to_save has {module!r}, whose weights are some rows of {piece.ours} here. Adapt it instead, "
                "with target_modules."
            )
        if prefix and model.decoder.head.tied and piece.ours in _TIED:
            raise ArgumentError(
                f"modules_to_save has {module!r}, but head and token embedding share their memory in this model. Load "
                "it with tie_word_embeddings=False."
            )
        yield Whole(name, piece.theirs, piece.ours if is_head else f"{prefix}{piece.ours}", piece.layout)
