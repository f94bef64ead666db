"""Whether a model still computes what it computed before: what a remembered key or a packed weight relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loquent.torch.adapters.layer import AdaptedLinear, LowRank, adapted_layers
from loquent.torch.attention import DynamicMask, SelfAttention
from loquent.torch.decoder import Block, DecoderStack
from loquent.torch.experts import CrossDomainExperts
from loquent.torch.layers import MLP, GatedMLP, RMSNorm

if TYPE_CHECKING:
    from loquent.torch.causal import CausalLM

_SMALL = 1 << 16
"""Up to so many numbers, all of a weight are compared, beside where it lies and how often it was changed."""

_SAMPLES = 16
"""How many numbers of a larger one are."""

_LAYERS: dict[type[nn.Module], Callable[..., Any]] = {
    layer: layer.forward
    for layer in (
        *(nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.PReLU, nn.ModuleList, nn.ModuleDict),
        *(AdaptedLinear, LowRank, RMSNorm, SelfAttention, DynamicMask, MLP, GatedMLP, CrossDomainExperts, Block),
    )
}
"""The layers that models are made of, each with the method that makes it what it is."""

_READING = {name: vars(DecoderStack)[name] for name in ("read", "_embed", "_run_block")}

Fingerprint = tuple[tuple[tuple[int, int], ...], bytes, tuple[tuple[float, ...], ...]]


def fingerprint(model: nn.Module, modules: Iterable[nn.Module]) -> Fingerprint:
    """Equal for equal weights and the same adapters acting, as far as `watched_numbers` can tell.

    `modules` are all of the model's.
    """
    parameters = list(model.parameters())
    places = tuple((p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)
    samples = torch.cat([watched_numbers(parameter).reshape(-1).float() for parameter in parameters])
    updates = (layer.updates(*layer.active) for layer in adapted_layers(modules))
    acting = tuple(tuple(x for part in parts for x in (id(part), part.scaling)) for parts in updates)
    return places, samples.cpu().view(torch.uint8).numpy().tobytes(), acting


def watched_numbers(weight: Tensor) -> Tensor:
    """A view of the numbers of a weight that are compared to see changes: all of a small one, few all over a large one.

    A parameter's version counts what torch's own operations change, but not what is written through `.data`: that is
    what its numbers are compared for.
    """
    line = weight.detach()
    if line.numel() <= _SMALL:
        return line
    while line.dim() > 1 and not line.is_contiguous():  # flattened, it would be a copy
        line = line[..., line.shape[-1] // 2]
    line = line.reshape(-1)
    return line[:: max(1, len(line) // _SAMPLES)][:_SAMPLES]


def deviation(model: CausalLM, modules: Iterable[nn.Module]) -> str | None:
    """What makes a model compute something else than follows from its composition and its weights, in a few words.

    That is hooks, replaced or patched layers and dropout that is active; training mode alone is none of it, nor are
    adapters, whose weights are the model's. `modules` are all of the model's.
    """
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "there are hooks on all modules"
    base = model.base_model
    if any(name in vars(base) or getattr(type(base), name) is not method for name, method in _READING.items()):
        return "its base model reads in its own way"
    dropout = 0.0
    for module in modules:
        if _is_altered(module, model):
            return _alteration(module, model)
        dropout = max(dropout, _active_dropout(module))
    return f"it is training with dropout {dropout:g}" if dropout else None


def _is_altered(module: nn.Module, model: CausalLM) -> bool:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return True
    if module is model or module is model.base_model:
        return False
    return _LAYERS.get(type(module)) is not type(module).forward


def _alteration(altered: nn.Module, model: CausalLM) -> str:
    name = next(name for name, module in model.named_modules() if module is altered) or "the model"
    if altered._forward_hooks or altered._forward_pre_hooks:
        return f"there are hooks on {name}"
    return f"{name} is replaced or patched"


def _active_dropout(module: nn.Module) -> float:
    if not module.training:
        return 0.0
    if isinstance(module, SelfAttention):  # whatever mode its dropout is in
        return module.dropout.p
    return module.p if isinstance(module, nn.Dropout) else 0.0
