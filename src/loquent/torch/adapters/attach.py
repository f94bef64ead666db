"""Which adapters a model has and which of them act: added, chosen, switched off, taken away. Merging is elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from loquent.config.lora import LoraConfig
from loquent.config.module_patterns import is_name
from loquent.errors import ArgumentError, hint
from loquent.torch.adapters.layer import LowRank, adapt, adapted_layers, restore
from loquent.torch.adapters.targets import Target, chosen, linear_layers, shortest_names
from loquent.torch.adapters.whole import Whole, check_known, put, whole_tensors

if TYPE_CHECKING:
    from loquent.torch.model import PreTrainedModel


@dataclasses.dataclass
class Adapters:
    """What a model knows of its adapters.

    configs: each adapter's config, its target_modules written out as names.
    targets: the linear layers that each adapts.
    wholes: the tensors that each has whole, with its own parameters.
    originals: the model's own parameters in the places of these, by their paths.
    frozen: the parameters that could be trained before there were adapters.
    active: those whose updates are added, where they are enabled and not merged.
    merged: those whose updates are in the weights now.
    """

    frozen: tuple[nn.Parameter, ...]
    configs: dict[str, LoraConfig] = dataclasses.field(default_factory=dict)
    targets: dict[str, tuple[Target, ...]] = dataclasses.field(default_factory=dict)
    wholes: dict[str, dict[Whole, nn.Parameter]] = dataclasses.field(default_factory=dict)
    originals: dict[str, nn.Parameter] = dataclasses.field(default_factory=dict)
    active: tuple[str, ...] = ()
    enabled: bool = True
    merged: tuple[str, ...] = ()


def add_lora(model: PreTrainedModel, config: LoraConfig, name: str = "default") -> None:
    """Add an adapter to train; it becomes the active one, and nothing else of the model is trained.

    A is random, by torch's generator (`torch.manual_seed`), and B is zero, so that the model computes what it did.

    Args:
        model: a model of any family.
        config: rank, scaling, and the linear layers to adapt.
        name: what to call it; a word.

    Raises:
        ArgumentError: there is such an adapter already, adapters are merged, or the config names what the model lacks.
    """
    if not isinstance(config, LoraConfig):
        raise ArgumentError(f"config is a {type(config).__name__}. Pass a loquent.LoraConfig, as LoraConfig(r=8).")
    layers = linear_layers(model)
    found = chosen(layers, config)
    check_known(model, config.modules_to_save or ())
    wholes = whole_tensors(model, config.modules_to_save or ())
    names = shortest_names(found, layers)
    base = config.base_model_name_or_path or model.name_or_path or None
    config = dataclasses.replace(config, inference_mode=False, base_model_name_or_path=base, target_modules=names)
    # The names say it all, and a file with them can be checked by whoever loads it.
    config = dataclasses.replace(config, exclude_modules=None, layers_to_transform=None, layers_pattern=None)
    for part in attach(model, config, found, name, wholes):
        part.initialize(config.init_lora_weights)


def attach(
    model: PreTrainedModel, config: LoraConfig, found: Iterable[Target], name: str, wholes: Iterable[Whole] = ()
) -> list[LowRank]:
    """Give a model an adapter without values for the linear layers found, in their order, and make it the active one.

    What it has whole begins as a copy of what the model has.

    Raises:
        ArgumentError: the name is taken or none, or adapters are merged.
    """
    targets = tuple(found)
    _check_new(model, name)
    state = model._adapters
    if state is None:
        before = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
        state = model._adapters = Adapters(before)
        for parameter in before:
            parameter.requires_grad_(False)
    transposed = any(target.is_transposed for target in targets)
    state.configs[name] = dataclasses.replace(config, fan_in_fan_out=transposed)
    state.targets[name] = targets
    parts = [_part(model, config, target, name) for target in targets]
    state.wholes[name] = {}
    for whole in wholes:
        original = state.originals.setdefault(whole.path, model.get_parameter(whole.path))
        state.wholes[name][whole] = nn.Parameter(original.detach().clone())
    state.active, state.enabled = (name,), True
    refresh(model, state)
    return parts


def choose(model: PreTrainedModel, names: str | Iterable[str]) -> None:
    """Make these the active adapters: the sum of their updates is added.

    Raises:
        ArgumentError: there is no such adapter, or adapters are merged.
    """
    state = known(model)
    wanted = checked_names(state, names)
    check_unmerged(state, "choose among adapters")
    check_apart(state, wanted)
    state.active = wanted
    refresh(model, state)


def enable(model: PreTrainedModel, enabled: bool) -> None:
    """Let the active adapters act, or let none.

    Raises:
        ArgumentError: there are no adapters, or some are merged.
    """
    state = known(model)
    check_unmerged(state, "switch adapters on and off")
    state.enabled = enabled
    refresh(model, state)


def delete(model: PreTrainedModel, names: str | Iterable[str]) -> None:
    """Take adapters away; behind the last one, what could be trained before can be again.

    Raises:
        ArgumentError: there is no such adapter, or adapters are merged.
    """
    state = known(model)
    gone = checked_names(state, names)
    check_unmerged(state, "delete one")
    for name in gone:
        del state.configs[name], state.targets[name], state.wholes[name]
        for layer in adapted_layers(model.modules()):
            layer.adapters.pop(name) if name in layer.adapters else None
    state.active = tuple(name for name in state.active if name not in gone)
    refresh(model, state)
    still = {whole.path for wholes in state.wholes.values() for whole in wholes}
    if not state.configs:
        forget(model)
    state.originals = {path: original for path, original in state.originals.items() if path in still}


def forget(model: PreTrainedModel) -> None:
    """Make a model's layers plain ones again, as they are now, and let be trained what could be before."""
    state = known(model)
    for layer in adapted_layers(model.modules()):
        restore(layer)
    frozen = {id(parameter) for parameter in state.frozen}
    replaced = {id(model.get_parameter(path)): id(original) for path, original in state.originals.items()}
    for parameter in model.parameters():
        if replaced.get(id(parameter), id(parameter)) in frozen:
            parameter.requires_grad_(True)
    model._adapters = None


def refresh(model: PreTrainedModel, state: Adapters) -> None:
    """Tell the layers which adapters act, and which are trained: the active ones that were not made for inference."""
    acting = state.active if state.enabled and not state.merged else ()
    for layer in adapted_layers(model.modules()):
        layer.active = tuple(name for name in acting if name in layer.adapters)
        for name, parts in layer.adapters.items():
            trained = name in state.active and not state.configs[name].inference_mode
            parts.requires_grad_(trained)
    for name, wholes in state.wholes.items():
        for parameter in wholes.values():
            parameter.requires_grad_(name in state.active and not state.configs[name].inference_mode)
    acting = state.merged or acting
    chosen_ones = {whole.path: own for name in acting for whole, own in state.wholes[name].items()}
    for path, original in state.originals.items():
        put(model, path, chosen_ones.get(path, original))


def known(model: PreTrainedModel) -> Adapters:
    """What is known of a model's adapters.

    Raises:
        ArgumentError: it has none.
    """
    if model._adapters is None:
        raise ArgumentError("The model has no adapters. add_lora(model, LoraConfig(...)) or load_adapter adds one.")
    return model._adapters


def checked_names(state: Adapters, names: str | Iterable[str]) -> tuple[str, ...]:
    """Names of adapters as a tuple.

    Raises:
        ArgumentError: there is none of such a name, or no name.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in state.configs:
            raise ArgumentError(
                f"adapter_name={name!r} is no adapter of the model. It has {', '.join(state.configs)}."
                f"{hint(str(name), state.configs)}"
            )
    if not wanted:
        raise ArgumentError("adapter_name names no adapter. disable_adapters() lets none act.")
    return tuple(dict.fromkeys(wanted))


def check_unmerged(state: Adapters, what: str) -> None:
    """Refuse to go on while adapters are merged.

    Raises:
        ArgumentError: some are.
    """
    if state.merged:
        raise ArgumentError(
            f"The adapter {', '.join(state.merged)} is merged into the weights. Call unmerge_adapter() to {what}, or "
            "merge_and_unload() to keep it there."
        )


def check_resizable(state: Adapters | None) -> None:
    """Refuse another size of the vocabulary where an adapter was made for this one.

    Raises:
        ArgumentError: one adapts the head, or has head or embedding whole.
    """
    if state is None:
        return
    adapted = [target.module for targets in state.targets.values() for target in targets if target.is_head]
    adapted += [path for path in state.originals if path.endswith(("head.weight", "head.bias", "tokens.weight"))]
    if adapted:
        raise ArgumentError(
            f"An adapter has {adapted[0]}, made for the vocabulary as it is. Resize the model before it has the "
            "adapter, or call merge_and_unload() first."
        )


def check_apart(state: Adapters, names: Iterable[str]) -> None:
    """Refuse adapters of which several have the same module whole.

    Raises:
        ArgumentError: two have.
    """
    paths = [whole.path for name in names for whole in state.wholes[name]]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ArgumentError(f"adapter_name={list(names)}: several have {', '.join(twice)} whole. Choose one of them.")


def _part(model: PreTrainedModel, config: LoraConfig, target: Target, name: str) -> LowRank:
    layer = model.get_submodule(target.module)
    assert isinstance(layer, nn.Linear)
    rank, scaling = config.rank(target.name), config.scaling(target.name)
    part = LowRank(layer, target.start, target.stop, rank, scaling, config.lora_dropout).train(layer.training)
    adapters = adapt(layer).adapters
    if name not in adapters:
        adapters[name] = nn.ModuleDict().train(layer.training)
    parts = adapters[name]
    assert isinstance(parts, nn.ModuleDict)
    parts[target.leaf] = part
    return part


def _check_new(model: PreTrainedModel, name: str) -> None:
    if not isinstance(name, str) or not is_name(name) or "." in name or hasattr(nn.ModuleDict, name):
        raise ArgumentError(f"adapter_name={name!r} cannot be one. Use a word, such as 'default'.")
    if any(name in layer.adapters for layer in adapted_layers(model.modules())):
        raise ArgumentError(f"adapter_name={name!r} is an adapter of the model already. Choose another name.")
    if model._adapters is not None:
        check_unmerged(model._adapters, "add another")
