"""Whether a model still computes what it computed before: what a remembered key or a packed weight relies on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SMALL = 1 << 16
"""Up to so many numbers, all of a parameter are compared, beside where it lies and how often it was changed."""

_SAMPLES = 16
"""How many numbers of a larger one are."""

Fingerprint = tuple[tuple[tuple[int, int], ...], bytes]


def fingerprint(model: nn.Module) -> Fingerprint:
    """Equal for equal weights.

    A parameter's version counts what torch's own operations change, but not what is written through `.data`; its
    numbers are compared for that, some of them in a large one.
    """
    parameters = list(model.parameters())
    places = tuple((p.data_ptr(), -1 if p.is_inference() else p._version) for p in parameters)
    samples = torch.cat([_sample(parameter) for parameter in parameters])
    return places, samples.cpu().view(torch.uint8).numpy().tobytes()


def is_plain(model: nn.Module) -> bool:
    """Whether outputs follow from weights and inputs: no dropout is active, no layer has hooks or was patched."""
    return not any(
        module.training or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        for module in model.modules()
    )


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    if flat.numel() <= _SMALL:
        return flat.float()
    return flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].float()
